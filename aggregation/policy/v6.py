"""``fluvial/policy/v6``: control variates, mixing, lots by cohort, and edges.

Beside v5's keys it has ``server.mixing``, ``selection.cohorts``, ``shares.cohort_window_max``, ``buffer.seconds_min``
and the sections ``control`` and ``edges``. What older formats mean in these words: ``meaning_of_v5``. Its keys never
change: a new key is a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.policy import v5
from aggregation.policy.v2 import FixedPointPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import StalenessPolicy
from aggregation.policy.v4 import DefencePolicy, MergePolicy
from aggregation.policy.v5 import SchedulePolicy, WeightsPolicy

FORMAT: Final = "fluvial/policy/v6"


class ControlPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SCAFFOLD's control variates, in tasks whose layout has them; see ``aggregation.layout``.

    ``devices``: the task's devices, N of the paper: a version moves the control variate by so many-th parts.
    ``norm_clip``: an update's control delta with a larger norm is scaled down to this norm.
    """

    devices: int = 1000
    norm_clip: float = 1.0


class BufferPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version: at FedBuff's K or at a deadline; in a buffer, or in synchronous rounds.

    ``quorum``: at the deadline a version has at least so many updates; until there are, it is waited for.
    ``seconds_min``: and no version is made sooner than that after the one before it.
    """

    mode: Literal["buffer", "rounds"] = "buffer"
    updates: int = 20
    quorum: int = 1
    seconds_min: float = 0.0
    seconds_max: float = 10.0
    late_windows: bool = True


class SharesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often one device may contribute: a token bucket. 0 a version: as often as it has bases to answer.

    ``cohort_window_max``: so many updates of one certified cohort are accepted in a window; 0: as many as come.
    """

    per_version: int = 1
    saved_max: int = 2
    cohort_window_max: int = 0


class SelectionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may contribute to a version; see ``aggregation.selection`` for the members.

    ``cohorts``: for ``cohorts``, the share of each named cohort, 0 to 1; ``share`` is that of whoever is of none.
    """

    kind: str = "all"
    share: float = 1.0
    slots: int = 1
    cohorts: dict[str, float] = {}  # msgspec copies the default; a Policy is never hashed by its fields

    def __hash__(self) -> int:
        """A mapping has no hash of its own."""
        return hash((self.kind, self.share, self.slots, tuple(sorted(self.cohorts.items()))))


class ServerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server optimizer; see ``aggregation.optimizers`` for the formulas and their sources.

    ``delay_versions_max``: versions whose most delayed update is later take a rate of at most 1/delay (FADAS); 0: all
    take the same. ``mixing``: an update is mixed into the model as FedAsync does, see ``aggregation.server.mixing``.
    """

    optimizer: str = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001
    delay_versions_max: int = 0
    mixing: bool = False
    divide_by: str = "updates"


class EdgesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Edges: aggregators below a region. ``updates_max``: what one edge's window may hold; 0: the task has none."""

    updates_max: int = 0


class DocumentV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v6 document."""

    format: Literal["fluvial/policy/v6"] = FORMAT
    updates: UpdatesPolicy = UpdatesPolicy()
    weights: WeightsPolicy = WeightsPolicy()
    selection: SelectionPolicy = SelectionPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    shares: SharesPolicy = SharesPolicy()
    server: ServerPolicy = ServerPolicy()
    schedule: SchedulePolicy = SchedulePolicy()
    control: ControlPolicy = ControlPolicy()
    defence: DefencePolicy = DefencePolicy()
    merge: MergePolicy = MergePolicy()
    edges: EdgesPolicy = EdgesPolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()


SECTIONS_SINCE_V6: Final = ("control", "edges")
KEYS_SINCE_V6: Final = (
    ("server", "mixing"),
    ("selection", "cohorts"),
    ("shares", "cohort_window_max"),
    ("buffer", "seconds_min"),
)


def meaning_of_v5(document: v5.DocumentV5) -> DocumentV6:
    """What a v5 document says, in v6's words: the same keys with the same values; what came later is off by default.

    No control delta comes in its tasks, so none is bounded otherwise than the weights' are.
    """
    sections = msgspec.to_builtins(document) | {"format": FORMAT}
    sections["control"] = {"norm_clip": document.updates.norm_clip}
    return msgspec.convert(sections, DocumentV6)


def as_v5(meaning: DocumentV6) -> v5.DocumentV5:
    """The v5 document whose meaning that is: what ``meaning_of_v5`` takes back."""
    sections = msgspec.to_builtins(meaning)
    for section in SECTIONS_SINCE_V6:
        del sections[section]
    for section, key in KEYS_SINCE_V6:
        del sections[section][key]
    return msgspec.convert(sections | {"format": v5.FORMAT}, v5.DocumentV5)
