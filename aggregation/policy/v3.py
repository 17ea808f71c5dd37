"""``fluvial/policy/v3``: fair shares, staleness in time, lateness at the merge, and a family of defences.

Beside v2's keys it has ``staleness.seconds_max``, ``buffer.late_windows`` and the sections ``shares`` and ``defence``;
``anomaly`` is a member of the defences now, ``peers``. What v1 and v2 mean in these words: ``meaning_of_v2``. Its keys
never change: a new key is a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.defences.peers import Peers
from aggregation.defences.undefended import Undefended
from aggregation.policy import v2
from aggregation.policy.v2 import FixedPointPolicy, ServerPolicy, UpdatesPolicy, WindowPolicy

FORMAT: Final = "fluvial/policy/v3"


class StalenessPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much an update counts whose base is not the newest version, and how long a base is welcome.

    ``weights`` is derived; see ``aggregation.weights``. A base is welcome while it is at most ``versions_max`` versions
    old, or was superseded at most ``seconds_max`` ago.
    """

    kind: str = "polynomial"
    versions_max: int = 20
    seconds_max: float = 600.0
    exponent: float = 0.5
    hinge_versions: int = 4
    hinge_slope: float = 1.0
    weights: tuple[int, ...] = ()


class BufferPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version: FedBuff's K, or a deadline; and whether a late window weighs less."""

    updates: int = 20
    seconds_max: float = 10.0
    late_windows: bool = True


class SharesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often one device may contribute: a token bucket. 0 a version: as often as it has bases to answer."""

    per_version: int = 1
    saved_max: int = 2


class DefencePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done about updates that are well-formed and harmful; see ``aggregation.defences`` for the members."""

    kind: str = "median"
    norm_clip_medians: float = 1.5
    norm_clip_floor: float = 0.5
    norm_deviations_max: float = 6.0
    cosine_min: float = -0.5
    history_updates: int = 64
    history_updates_min: int = 8
    guide_cosine_min: float = -0.1
    guide_versions_max: int = 2
    step_cosine_min: float = 0.95
    guide_missing: Literal["go_on", "wait"] = "go_on"
    quarantine_refusals: int = 6
    quarantine_versions: int = 32


class DocumentV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v3 document."""

    format: Literal["fluvial/policy/v3"] = FORMAT
    updates: UpdatesPolicy = UpdatesPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    shares: SharesPolicy = SharesPolicy()
    server: ServerPolicy = ServerPolicy()
    defence: DefencePolicy = DefencePolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()


_PEERS: Final = ("norm_deviations_max", "cosine_min", "history_updates", "history_updates_min")
_SINCE_V3: Final = {"staleness": ("seconds_max",), "buffer": ("late_windows",)}


def meaning_of_v2(document: v2.DocumentV2) -> DocumentV3:
    """What a v2 document says, in v3's words: the same keys with the same values, and nothing of what came later."""
    sections = msgspec.to_builtins(document)
    anomaly = sections.pop("anomaly")
    sections["format"] = FORMAT
    sections["staleness"] |= {"seconds_max": 0.0}
    sections["buffer"] |= {"late_windows": False}
    sections["shares"] = {"per_version": 0}
    sections["defence"] = {name: anomaly[name] for name in _PEERS} | {
        "kind": Peers.name if anomaly["enabled"] else Undefended.name,
        "quarantine_refusals": 0,
    }
    return msgspec.convert(sections, DocumentV3)


def as_v2(meaning: DocumentV3) -> v2.DocumentV2:
    """The v2 document whose meaning that is: what ``meaning_of_v2`` takes back."""
    sections = msgspec.to_builtins(meaning)
    defence = sections.pop("defence")
    del sections["shares"]
    for section, keys in _SINCE_V3.items():
        for key in keys:
            del sections[section][key]
    sections["format"] = v2.FORMAT
    sections["anomaly"] = {name: defence[name] for name in _PEERS} | {
        "enabled": defence["kind"] == Peers.name
    }
    return msgspec.convert(sections, v2.DocumentV2)
