"""``fluvial/policy/v5``: weights by examples, rounds, lots among devices, and rates that follow the version.

Beside v4's keys it has ``buffer.mode``, ``buffer.quorum``, ``server.nesterov``, ``server.delay_versions_max`` and the
sections ``weights``, ``selection`` and ``schedule``. What older formats mean in these words: ``meaning_of_v4``. Its
keys never change: a new key is a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.policy import v4
from aggregation.policy.v2 import FixedPointPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import SharesPolicy, StalenessPolicy
from aggregation.policy.v4 import DefencePolicy, MergePolicy

FORMAT: Final = "fluvial/policy/v5"


class WeightsPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an update weighs beside its staleness: each alike, or by the examples that its device says it trained on.

    ``examples_max``: so many count at most, so that a boast buys little.
    """

    by: Literal["examples", "updates"] = "updates"
    examples_max: int = 1000


class BufferPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version: at FedBuff's K or at a deadline; in a buffer, or in synchronous rounds.

    ``quorum``: at the deadline a version has at least so many updates; until there are, it is waited for.
    """

    mode: Literal["buffer", "rounds"] = "buffer"
    updates: int = 20
    quorum: int = 1
    seconds_max: float = 10.0
    late_windows: bool = True


class SelectionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may contribute to a version; see ``aggregation.selection`` for the members."""

    kind: str = "all"
    share: float = 1.0
    slots: int = 1


class ServerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server optimizer; see ``aggregation.optimizers`` for the formulas and their sources.

    ``delay_versions_max``: versions whose most delayed update is later take a rate of at most 1/delay (FADAS); 0: all
    take the same.
    """

    optimizer: str = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001
    delay_versions_max: int = 0
    divide_by: str = "updates"


class SchedulePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the server's learning rate follows the version; see ``aggregation.schedules`` for the members."""

    kind: str = "constant"
    versions: int = 100
    factor: float = 0.1
    warmup_versions: int = 0


class DocumentV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v5 document."""

    format: Literal["fluvial/policy/v5"] = FORMAT
    updates: UpdatesPolicy = UpdatesPolicy()
    weights: WeightsPolicy = WeightsPolicy()
    selection: SelectionPolicy = SelectionPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    shares: SharesPolicy = SharesPolicy()
    server: ServerPolicy = ServerPolicy()
    schedule: SchedulePolicy = SchedulePolicy()
    defence: DefencePolicy = DefencePolicy()
    merge: MergePolicy = MergePolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()


SECTIONS_SINCE_V5: Final = ("weights", "selection", "schedule")
KEYS_SINCE_V5: Final = (
    ("buffer", "mode"),
    ("buffer", "quorum"),
    ("server", "nesterov"),
    ("server", "delay_versions_max"),
)


def meaning_of_v4(document: v4.DocumentV4) -> DocumentV5:
    """What a v4 document says, in v5's words: the same keys with the same values; what came later is off by default."""
    return msgspec.convert(msgspec.to_builtins(document) | {"format": FORMAT}, DocumentV5)


def as_v4(meaning: DocumentV5) -> v4.DocumentV4:
    """The v4 document whose meaning that is: what ``meaning_of_v4`` takes back."""
    sections = msgspec.to_builtins(meaning)
    for section in SECTIONS_SINCE_V5:
        del sections[section]
    for section, key in KEYS_SINCE_V5:
        del sections[section][key]
    return msgspec.convert(sections | {"format": v4.FORMAT}, v4.DocumentV4)
