"""``fluvial/policy/v2``: a document that says its format, and names members of families by their tables' names.

It has v1's keys with v1's meanings and defaults, and ``format``. Codecs, server optimizers, staleness kinds and
divisors may be any that their tables have. Its keys never change: a new key is a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

FORMAT: Final = "fluvial/policy/v2"


class UpdatesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one update may be."""

    bytes_max: int = 8 << 20
    norm_clip: float = 3.0
    norm_max: float = 1000.0
    codecs: tuple[str, ...] = ("int8", "float32")


class StalenessPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much an update counts whose base is not the newest version.

    ``weights`` is derived; see ``aggregation.weights``.
    """

    kind: str = "polynomial"
    versions_max: int = 20
    exponent: float = 0.5
    hinge_versions: int = 4
    hinge_slope: float = 1.0
    weights: tuple[int, ...] = ()


class WindowPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a partition's window closes."""

    updates_max: int = 64
    records_max: int = 10_000
    seconds_max: float = 2.0


class BufferPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version: FedBuff's K, or a deadline."""

    updates: int = 20
    seconds_max: float = 10.0


class ServerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server optimizer; see ``aggregation.optimizers`` for the formulas and their sources."""

    optimizer: str = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001
    divide_by: str = "updates"


class AnomalyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a well-formed, well-signed update is refused as an outlier; see ``aggregation.defences`` for the scores."""

    enabled: bool = True
    norm_deviations_max: float = 6.0
    cosine_min: float = -0.5
    history_updates: int = 64
    history_updates_min: int = 8


class FixedPointPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sums count in units of 2**-exponent. Fixed for the life of a task."""

    exponent: int = 32


class DocumentV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v2 document."""

    format: Literal["fluvial/policy/v2"] = FORMAT
    updates: UpdatesPolicy = UpdatesPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    server: ServerPolicy = ServerPolicy()
    anomaly: AnomalyPolicy = AnomalyPolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()
