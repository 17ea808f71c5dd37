"""``fluvial/genesis/v6``: as v5, and the layout may have a section of control variates (``aggregation.layout``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import msgspec

from aggregation.layout import CONTROL, DTYPE, is_control_name
from schemas.documents.genesis_v5 import (
    CodeV5,
    MetricV5,
    ModelV5,
    ParentV5,
    RecordsV5,
    RegionV5,
    require_nonce,
)

FORMAT: Final = "fluvial/genesis/v6"


class TensorV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``dtype`` is what a device holds it in; the model's file is float32 always.

    ``nonnegative``: an element below 0 makes no sense, as in a variance.
    """

    name: str
    shape: tuple[int, ...]
    section: Literal["weights", "buffers", "control"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    nonnegative: bool


class GenesisV6(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole v6 document. ``nonce``: 32 random bytes, hex, drawn when the task was made."""

    task: str
    nonce: str
    regions: dict[str, RegionV5]
    control_authority: str
    layout: tuple[TensorV6, ...]
    model: ModelV5
    code: CodeV5 | None
    metric: MetricV5 | None
    parent: ParentV5 | None
    policy: dict[str, Any]
    records: RecordsV5
    model_sha256: str
    optimizer_sha256: str
    version: Literal[0]
    format: Literal["fluvial/genesis/v6"]

    def __post_init__(self) -> None:
        """ValueError where the nonce is none, or control variates are not what they have to be."""
        require_nonce(self.nonce, FORMAT)
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
