"""``fluvial/genesis/v6``: as v5, and the layout may have a section of control variates (``aggregation.layout``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import msgspec

from aggregation.layout import CONTROL, DTYPE, is_control_name
from schemas.documents.genesis_v4 import require_canonical
from schemas.documents.genesis_v5 import require_nonce

FORMAT: Final = "fluvial/genesis/v6"


class RegionV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``dtype`` is what a device holds it in; the model's file is float32 always.

    ``nonnegative``: an element below 0 makes no sense, as in a variance.
    """

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers", "control"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    nonnegative: bool


class ObjectV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the task's store: the hex SHA-256 of its bytes, and how many they are."""

    sha256: str
    size: int


class ModelV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the model stands outside the layout.

    kind: by which library it is made, such as "torch". tied: names that are another tensor, by that tensor's name.
    frozen: a safetensors file of the tensors that no device changes, or null.
    """

    kind: str
    tied: dict[str, str]
    frozen: ObjectV6 | None


class CodeV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive of the task's program: an object, and which file in it is the task's."""

    sha256: str
    size: int
    entry: str


class MetricV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its metrics the task is judged."""

    name: str
    higher_is_better: bool


class ParentV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of another task whose model is this task's first one."""

    task: str
    genesis_sha256: str
    version: int
    manifest_sha256: str


class RecordsV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rules hold for records.

    canonical: bytes that are not the one encoding of what they say are refused; always true. verdicts: the version of
    Verdict that workers write.
    """

    canonical: bool
    verdicts: Literal[1, 2]

    def __post_init__(self) -> None:
        """ValueError where records need not be canonical."""
        require_canonical(canonical=self.canonical)


class GenesisV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v6 document. ``nonce``: 32 random bytes, hex, drawn when the task was made."""

    task: str
    nonce: str
    regions: dict[str, RegionV6]
    control_authority: str
    layout: tuple[TensorV6, ...]
    model: ModelV6
    code: CodeV6 | None
    metric: MetricV6 | None
    parent: ParentV6 | None
    policy: dict[str, Any]
    records: RecordsV6
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v6"]

    def __post_init__(self) -> None:
        """ValueError where the nonce is none, or control variates are not what they have to be."""
        require_nonce(self.nonce)
        require_sound_control(self.layout)


class NamedTensor(Protocol):
    """What is asked of a tensor."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def section(self) -> str:
        """Where it stands."""
        ...

    @property
    def dtype(self) -> str:
        """What a device holds it in."""
        ...


def require_sound_control(layout: Iterable[NamedTensor]) -> None:
    """ValueError where a weight or buffer is called like a control variate, or one of these is no float32."""
    for tensor in layout:
        if tensor.section != CONTROL and is_control_name(tensor.name):
            raise ValueError(f"{FORMAT} has no weight or buffer called {tensor.name!r}: rename it in model()")
        if tensor.section == CONTROL and tensor.dtype != DTYPE:
            raise ValueError(
                f"{FORMAT} has control variates of {DTYPE}, not {tensor.name!r} of {tensor.dtype}"
            )
