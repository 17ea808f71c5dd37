"""What each format of a genesis document can say, and which one a new task is described in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Protocol

from aggregation.layout import CONTROL, DTYPE, WEIGHTS
from schemas.documents import (
    genesis_v1,
    genesis_v2,
    genesis_v3,
    genesis_v4,
    genesis_v5,
    genesis_v6,
)

BEFORE_V3: Final = frozenset({genesis_v1.FORMAT, genesis_v2.FORMAT})
"""Formats that say nothing of the model but its layout."""
BEFORE_V4: Final = BEFORE_V3 | {genesis_v3.FORMAT}
"""Formats that say nothing of the rules of records: the first hold."""
BEFORE_V5: Final = BEFORE_V4 | {genesis_v4.FORMAT}
"""Formats without a nonce: what is signed in their tasks does not name the document."""
BEFORE_V6: Final = BEFORE_V5 | {genesis_v5.FORMAT}
"""Formats whose layouts have no control variates."""
NEWEST_GENESIS: Final = genesis_v5.FORMAT
"""The format of a new task's genesis document, but of one with control variates."""
CONTROL_GENESIS: Final = genesis_v6.FORMAT
"""The format of a new task's genesis document whose devices train with control variates."""
_WHOLE_TENSOR: Final = ("name", "shape", "section", "dtype", "nonnegative")
KEYS_OF_A_TENSOR: Final = {
    genesis_v1.FORMAT: ("name", "shape"),
    genesis_v2.FORMAT: ("name", "shape", "section"),
} | dict.fromkeys((genesis_v3.FORMAT, genesis_v4.FORMAT, genesis_v5.FORMAT, genesis_v6.FORMAT), _WHOLE_TENSOR)


class Tensor(Protocol):
    """A tensor of a document's layout."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def section(self) -> str:
        """Where in the layout it stands."""
        ...

    @property
    def dtype(self) -> str:
        """What a device holds it in."""
        ...

    @property
    def nonnegative(self) -> bool:
        """Whether an element below 0 makes no sense."""
        ...


def require_sayable_layout(form: str, layout: Iterable[Tensor]) -> None:
    """ValueError where a format cannot say something of the layout."""
    for tensor in layout:
        if form == genesis_v1.FORMAT and tensor.section != WEIGHTS:
            raise ValueError(f"{form} has no sections but {WEIGHTS}: a later format has")
        if form in BEFORE_V3 and (tensor.dtype, tensor.nonnegative) != (DTYPE, False):
            raise ValueError(f"{form} cannot say a tensor's dtype or range: {NEWEST_GENESIS} can")
        if form in BEFORE_V6 - BEFORE_V3 and tensor.section == CONTROL:
            raise ValueError(f"{form} has no section {CONTROL}: {CONTROL_GENESIS} has")
    if form not in BEFORE_V6:
        genesis_v6.require_sound_control(layout)


def require_sayable_keys(form: str, since_v3: Collection[str], *, records: bool, nonce: str | None) -> None:
    """ValueError where a format cannot say a key that was given: ``since_v3`` names those of v3."""
    if form in BEFORE_V3 and since_v3:
        raise ValueError(f"{form} cannot say {', '.join(since_v3)}: {NEWEST_GENESIS} can")
    if form in BEFORE_V4 and records:
        raise ValueError(f"{form} cannot say records: {NEWEST_GENESIS} can")
    if form not in BEFORE_V5:
        genesis_v5.require_nonce(nonce)
    elif nonce is not None:
        raise ValueError(f"{form} cannot say nonce: {NEWEST_GENESIS} can")
