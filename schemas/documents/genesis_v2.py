"""``fluvial/genesis/v2``: every tensor names the section of the layout in which it stands."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

FORMAT: Final = "fluvial/genesis/v2"


class RegionV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout."""

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers"]


class GenesisV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v2 document."""

    task: str
    regions: dict[str, RegionV2]
    control_authority: str
    layout: tuple[TensorV2, ...]
    policy: dict[str, Any]
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v2"]
