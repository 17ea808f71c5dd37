"""``fluvial/genesis/v4``: as v3, and which rules hold for the task's records."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

FORMAT: Final = "fluvial/genesis/v4"


def require_canonical(*, canonical: bool) -> None:
    """ValueError where records need not be canonical, which no task of this format can say."""
    if not canonical:
        raise ValueError(
            f"{FORMAT} has no records.canonical but true: set it to true, or leave records out, which says the same"
        )


class RegionV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``dtype`` is what a device holds it in; the model's file is float32 always.

    ``nonnegative``: an element below 0 makes no sense, as in a variance.
    """

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    nonnegative: bool


class ObjectV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the task's store: the hex SHA-256 of its bytes, and how many they are."""

    sha256: str
    size: int


class ModelV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the model stands outside the layout.

    kind: by which library it is made, such as "torch". tied: names that are another tensor, by that tensor's name.
    frozen: a safetensors file of the tensors that no device changes, or null.
    """

    kind: str
    tied: dict[str, str]
    frozen: ObjectV4 | None


class CodeV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive of the task's program: an object, and which file in it is the task's."""

    sha256: str
    size: int
    entry: str


class MetricV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its metrics the task is judged."""

    name: str
    higher_is_better: bool


class ParentV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of another task whose model is this task's first one."""

    task: str
    genesis_sha256: str
    version: int
    manifest_sha256: str


class RecordsV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rules hold for records.

    canonical: bytes that are not the one encoding of what they say are refused; always true. verdicts: the version of
    Verdict that workers write.
    """

    canonical: bool
    verdicts: Literal[1, 2]

    def __post_init__(self) -> None:
        """ValueError where records need not be canonical."""
        require_canonical(canonical=self.canonical)


class GenesisV4(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v4 document."""

    task: str
    regions: dict[str, RegionV4]
    control_authority: str
    layout: tuple[TensorV4, ...]
    model: ModelV4
    code: CodeV4 | None
    metric: MetricV4 | None
    parent: ParentV4 | None
    policy: dict[str, Any]
    records: RecordsV4
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v4"]
