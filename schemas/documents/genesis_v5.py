"""``fluvial/genesis/v5``: as v4, and a nonce: no two tasks have the same document, so what is signed can name it."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec

from schemas.documents.genesis_v4 import require_canonical

FORMAT: Final = "fluvial/genesis/v5"


NONCE_PATTERN: Final = re.compile(r"[0-9a-f]{64}")


def require_nonce(nonce: str | None, of: str = FORMAT) -> None:
    """ValueError for a nonce that is not 64 hex digits in lower case; ``of``: the format of its document."""
    if nonce is None or not NONCE_PATTERN.fullmatch(nonce):
        raise ValueError(f"{of} has a nonce of 64 hex digits in lower case (32 random bytes), not {nonce!r}")


class RegionV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``dtype`` is what a device holds it in; the model's file is float32 always.

    ``nonnegative``: an element below 0 makes no sense, as in a variance.
    """

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    nonnegative: bool


class ObjectV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the task's store: the hex SHA-256 of its bytes, and how many they are."""

    sha256: str
    size: int


class ModelV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the model stands outside the layout.

    kind: by which library it is made, such as "torch". tied: names that are another tensor, by that tensor's name.
    frozen: a safetensors file of the tensors that no device changes, or null.
    """

    kind: str
    tied: dict[str, str]
    frozen: ObjectV5 | None


class CodeV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive of the task's program: an object, and which file in it is the task's."""

    sha256: str
    size: int
    entry: str


class MetricV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its metrics the task is judged."""

    name: str
    higher_is_better: bool


class ParentV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of another task whose model is this task's first one."""

    task: str
    genesis_sha256: str
    version: int
    manifest_sha256: str


class RecordsV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rules hold for records.

    canonical: bytes that are not the one encoding of what they say are refused; always true. verdicts: the version of
    Verdict that workers write.
    """

    canonical: bool
    verdicts: Literal[1, 2]

    def __post_init__(self) -> None:
        """ValueError where records need not be canonical."""
        require_canonical(canonical=self.canonical)


class GenesisV5(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v5 document. ``nonce``: 32 random bytes, hex, drawn when the task was made."""

    task: str
    nonce: str
    regions: dict[str, RegionV5]
    control_authority: str
    layout: tuple[TensorV5, ...]
    model: ModelV5
    code: CodeV5 | None
    metric: MetricV5 | None
    parent: ParentV5 | None
    policy: dict[str, Any]
    records: RecordsV5
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v5"]

    def __post_init__(self) -> None:
        """ValueError where the nonce is none."""
        require_nonce(self.nonce)
