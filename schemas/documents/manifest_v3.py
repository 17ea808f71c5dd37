"""``fluvial/manifest/v3``, frozen: as v2, and says how late each window was, what is usual, and the guide.

Of versions that are merged under ``fluvial/policy/v3`` or later, in tasks since ``fluvial/genesis/v5``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

FORMAT: Final = "fluvial/manifest/v3"

Count = Annotated[int, msgspec.Meta(ge=1)]
NormV3 = tuple[Annotated[int, msgspec.Meta(ge=0, lt=2047 << 3)], Count]
"""[bucket, count], as the next two. In a histogram buckets ascend, and no count is 0."""
CosineV3 = tuple[Annotated[int, msgspec.Meta(ge=-64, le=64)], Count]
ShareV3 = tuple[Annotated[int, msgspec.Meta(ge=1, le=255)], Count]


class InputV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One aggregate that went into a version. ``sha256`` names its Avro payload.

    ``version`` is the one that it was folded under, ``weight_total`` that of its updates as they were folded, and
    ``weight`` what lateness leaves of it, in units of 1/65536; 0: it was dropped.
    """

    region: str
    partition: int
    sequence: int
    first_offset: int
    next_offset: int
    version: Annotated[int, msgspec.Meta(ge=0)]
    accepted: int
    weight_total: int
    weight: Annotated[int, msgspec.Meta(ge=0, le=65536)]
    sum_sha256: str
    sha256: str


class UsualV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pools of the inputs' histograms and of those before: see ``aggregation.defences.usual``."""

    norms: tuple[NormV3, ...]
    cosines: tuple[CosineV3, ...]
    shares: tuple[ShareV3, ...]


class MergerV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who made the version: the certificate (DER) and the signature, base64 both."""

    certificate: str
    signature: str


class ManifestV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v3 document.

    ``cursors[region][partition]`` is the next aggregate sequence that no version holds yet. ``accepted`` to
    ``update_bytes`` are of inputs that were not dropped, ``weight_total`` after lateness; ``counts`` are of all inputs.
    """

    task: str
    version: int
    parent_sha256: str
    policy_sha256: str
    inputs: tuple[InputV3, ...]
    cursors: dict[str, tuple[int, ...]]
    counts: dict[str, int]
    accepted: int
    dropped: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    usual: UsualV3
    guide_sha256: str
    model_sha256: str
    optimizer_sha256: str
    reference_sha256: str
    floor: int
    reason: str
    merger: MergerV3
    format: Literal["fluvial/manifest/v3"]
