"""``fluvial/policy/v4``: the merge is a choice, and a window's sums may stand in buckets.

Beside v3's keys it has the section ``merge``. What older formats mean in these words: ``meaning_of_v3``. Its keys never
change: a new key is a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.merges.mean import Mean
from aggregation.policy import v3
from aggregation.policy.v2 import FixedPointPolicy, ServerPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import BufferPolicy, DefencePolicy, SharesPolicy, StalenessPolicy

FORMAT: Final = "fluvial/policy/v4"


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
    """What a v3 document says, in v4's words: the same keys with the same values, and sums that are simply added."""
    return msgspec.convert(msgspec.to_builtins(document) | {"format": FORMAT}, DocumentV4)


def as_v3(meaning: DocumentV4) -> v3.DocumentV3:
    """The v3 document whose meaning that is: what ``meaning_of_v3`` takes back."""
    sections = msgspec.to_builtins(meaning)
    del sections["merge"]
    return msgspec.convert(sections | {"format": v3.FORMAT}, v3.DocumentV3)
