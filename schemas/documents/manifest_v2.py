"""``fluvial/manifest/v2``, frozen: as v1, and signed by its merger. Of tasks since ``fluvial/genesis/v5``."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

FORMAT: Final = "fluvial/manifest/v2"


class InputV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One aggregate that went into a version. ``sha256`` names its Avro payload."""

    region: str
    partition: int
    sequence: int
    first_offset: int
    next_offset: int
    accepted: int
    sum_sha256: str
    sha256: str


class MergerV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who made the version: the certificate (DER) and the signature, base64 both."""

    certificate: str
    signature: str


class ManifestV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v2 document.

    ``cursors[region][partition]`` is the next aggregate sequence that no version holds yet.
    """

    task: str
    version: int
    parent_sha256: str
    policy_sha256: str
    inputs: tuple[InputV2, ...]
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
    merger: MergerV2
    format: Literal["fluvial/manifest/v2"]
