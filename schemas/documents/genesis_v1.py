"""``fluvial/genesis/v1``, frozen: a task whose tensors all stand in the section ``weights``."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

FORMAT: Final = "fluvial/genesis/v1"


class RegionV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout."""

    name: str
    shape: tuple[int, ...]


class GenesisV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v1 document."""

    task: str
    regions: dict[str, RegionV1]
    control_authority: str
    layout: tuple[TensorV1, ...]
    policy: dict[str, Any]
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v1"]
