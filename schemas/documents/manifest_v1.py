"""``fluvial/manifest/v1``, frozen: a version above 0."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

FORMAT: Final = "fluvial/manifest/v1"


class InputV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One aggregate that went into a version. ``sha256`` names its Avro payload."""

    region: str
    partition: int
    sequence: int
    first_offset: int
    next_offset: int
    accepted: int
    sum_sha256: str
    sha256: str


class ManifestV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v1 document.

    ``cursors[region][partition]`` is the next aggregate sequence that no version holds yet.
    """

    task: str
    version: int
    parent_sha256: str
    policy_sha256: str
    inputs: tuple[InputV1, ...]
    cursors: dict[str, tuple[int, ...]]
    counts: dict[str, int]
    accepted: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    model_sha256: str
    optimizer_sha256: str
    reference_sha256: str
    floor: int
    reason: str
    format: Literal["fluvial/manifest/v1"]
