"""``slots``: each device's turn comes once in so many versions, so over time all may contribute equally often."""

from __future__ import annotations

from typing import ClassVar, Final

from aggregation.selection.shape import Candidate, Selection, SelectionParameters, drawn

_PREFIX: Final = b"fluvial/slot/v1"


class Slots(Selection):
    """(version - Lot("fluvial/slot/v1", task, device id)) mod slots <= turns: each turn admits the version before's."""

    name: ClassVar[str] = "slots"
    foresees: ClassVar[bool] = True

    def selects(self, parameters: SelectionParameters, candidate: Candidate) -> bool:
        """See ``Selection``."""
        slot = drawn(_PREFIX, candidate.task, candidate.device_id)
        return (candidate.version - slot) % parameters.slots <= candidate.turns

    def versions_until(self, parameters: SelectionParameters, candidate: Candidate) -> int:
        """See ``Selection``."""
        slot = drawn(_PREFIX, candidate.task, candidate.device_id)
        return (slot - candidate.version) % parameters.slots or parameters.slots
