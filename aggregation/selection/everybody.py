"""``all``: every device may answer every version."""

from __future__ import annotations

from typing import ClassVar

from aggregation.selection.shape import Candidate, Selection, SelectionParameters


class Everybody(Selection):
    """See the module."""

    name: ClassVar[str] = "all"
    selective: ClassVar[bool] = False
    foresees: ClassVar[bool] = True

    def selects(self, parameters: SelectionParameters, candidate: Candidate) -> bool:  # noqa: ARG002 (it asks nothing)
        """See ``Selection``."""
        return True
