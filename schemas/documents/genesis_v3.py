"""``fluvial/genesis/v3``: beside the layout, what else a task is made of: its model, code, metric and parent.

Every key is always there; what a task does not have is null.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

FORMAT: Final = "fluvial/genesis/v3"


class RegionV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``dtype`` is what a device holds it in; the model's file is float32 always.

    ``nonnegative``: an element below 0 makes no sense, as in a variance.
    """

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    nonnegative: bool


class ObjectV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the task's store: the hex SHA-256 of its bytes, and how many they are."""

    sha256: str
    size: int


class ModelV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the model stands outside the layout.

    kind: by which library it is made, such as "torch". tied: names that are another tensor, by that tensor's name.
    frozen: a safetensors file of the tensors that no device changes, or null.
    """

    kind: str
    tied: dict[str, str]
    frozen: ObjectV3 | None


class CodeV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive of the task's program: an object, and which file in it is the task's."""

    sha256: str
    size: int
    entry: str


class MetricV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its metrics the task is judged."""

    name: str
    higher_is_better: bool


class ParentV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of another task whose model is this task's first one."""

    task: str
    genesis_sha256: str
    version: int
    manifest_sha256: str


class GenesisV3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v3 document."""

    task: str
    regions: dict[str, RegionV3]
    control_authority: str
    layout: tuple[TensorV3, ...]
    model: ModelV3
    code: CodeV3 | None
    metric: MetricV3 | None
    parent: ParentV3 | None
    policy: dict[str, Any]
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v3"]
