"""``fluvial/policy/v1``, frozen: the documents of every task that was made before formats had names.

A v1 document has no ``format`` key. Its keys, names, defaults and canonical form never change again; ``meaning_of_v1``
says what they mean today. A new key or a new name belongs to a new format (``docs/extending.md``).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from aggregation.policy import v2

FORMAT: Final = "fluvial/policy/v1"

CodecName = Literal["int8", "float32"]
StalenessKind = Literal["constant", "polynomial", "hinge"]
OptimizerName = Literal["sgd", "adam"]


class UpdatesV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one update may be."""

    bytes_max: int = 8 << 20
    norm_clip: float = 3.0
    norm_max: float = 1000.0
    codecs: tuple[CodecName, ...] = ("int8", "float32")


class StalenessV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much an update counts whose base is not the newest version."""

    kind: StalenessKind = "polynomial"
    versions_max: int = 20
    exponent: float = 0.5
    hinge_versions: int = 4
    hinge_slope: float = 1.0
    weights: tuple[int, ...] = ()


class WindowV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a partition's window closes."""

    updates_max: int = 64
    records_max: int = 10_000
    seconds_max: float = 2.0


class BufferV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version."""

    updates: int = 20
    seconds_max: float = 10.0


class ServerV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server optimizer."""

    optimizer: OptimizerName = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001
    divide_by: Literal["updates", "weights"] = "updates"


class AnomalyV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a well-formed update is refused as an outlier."""

    enabled: bool = True
    norm_deviations_max: float = 6.0
    cosine_min: float = -0.5
    history_updates: int = 64
    history_updates_min: int = 8


class FixedPointV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The unit of the sums."""

    exponent: int = 32


class DocumentV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v1 document."""

    updates: UpdatesV1 = UpdatesV1()
    staleness: StalenessV1 = StalenessV1()
    window: WindowV1 = WindowV1()
    buffer: BufferV1 = BufferV1()
    server: ServerV1 = ServerV1()
    anomaly: AnomalyV1 = AnomalyV1()
    fixed_point: FixedPointV1 = FixedPointV1()


def meaning_of_v1(document: DocumentV1) -> v2.DocumentV2:
    """What a v1 document says, in v2's words: the same keys with the same values."""
    return msgspec.convert(msgspec.to_builtins(document), v2.DocumentV2)
