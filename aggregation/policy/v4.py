"""``fluvial/policy/v4``: the merge is a choice, a window's sums may stand in buckets, and a norm counts by its square.

Beside v3's keys it has ``defence.usual_norm_by`` and the section ``merge``, and other defaults in ``defence``. What
older formats mean in these words: ``meaning_of_v3``. Its keys never change: a new key is a new format
(``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.defences import BY_SQUARES, BY_UPDATES
from aggregation.merges.mean import Mean
from aggregation.policy import v3
from aggregation.policy.v2 import FixedPointPolicy, ServerPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import BufferPolicy, SharesPolicy, StalenessPolicy

FORMAT: Final = "fluvial/policy/v4"


class DefencePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done about updates that are well-formed and harmful; see ``aggregation.defences`` for the members.

    ``usual_norm_by``: whether each device counts alike in the usual norm, or besides by its updates' squared norms.
    """

    kind: str = "median"
    usual_norm_by: Literal["squares", "updates"] = BY_SQUARES
    norm_clip_medians: float = 1.25
    norm_clip_floor: float = 0.5
    norm_deviations_max: float = 6.0
    cosine_min: float = -0.5
    history_updates: int = 64
    history_updates_min: int = 8
    guide_cosine_min: float = -0.4
    guide_versions_max: int = 2
    step_cosine_min: float = 0.98
    guide_missing: Literal["go_on", "wait"] = "go_on"
    quarantine_refusals: int = 6
    quarantine_versions: int = 32


class MergePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a version's buckets of updates become one sum; see ``aggregation.merges`` for the members.

    ``buckets``: how many a partition's accepted updates are spread over. ``byzantine``: how many of them may be bad; 0
    for as many as there can be. ``iterations``: how often a geometric median is brought nearer.
    """

    kind: str = Mean.name
    buckets: int = 1
    byzantine: int = 0
    iterations: int = 8


class DocumentV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v4 document."""

    format: Literal["fluvial/policy/v4"] = FORMAT
    updates: UpdatesPolicy = UpdatesPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    shares: SharesPolicy = SharesPolicy()
    server: ServerPolicy = ServerPolicy()
    defence: DefencePolicy = DefencePolicy()
    merge: MergePolicy = MergePolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()


def meaning_of_v3(document: v3.DocumentV3) -> DocumentV4:
    """What a v3 document says, in v4's words: the same keys with the same values, and nothing of what came later.

    Sums are simply added, and devices count alike in the usual norm, however long their updates are.
    """
    sections = msgspec.to_builtins(document)
    sections["format"] = FORMAT
    sections["defence"] |= {"usual_norm_by": BY_UPDATES}
    return msgspec.convert(sections, DocumentV4)


def as_v3(meaning: DocumentV4) -> v3.DocumentV3:
    """The v3 document whose meaning that is: what ``meaning_of_v3`` takes back."""
    sections = msgspec.to_builtins(meaning)
    del sections["merge"], sections["defence"]["usual_norm_by"]
    return msgspec.convert(sections | {"format": v3.FORMAT}, v3.DocumentV3)
