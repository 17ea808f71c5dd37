"""What a tensor's bytes are, codec by codec, as docs/policy.md and the codecs' texts say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fluvial.proof.checker.arithmetic import Tensor
from fluvial.proof.checker.task import Damaged

Elements = npt.NDArray[Any]
"""int8 for a codec of small integers, float32 for one of floats; the arithmetic goes by that."""


@dataclass(frozen=True, slots=True)
class Form:
    """One codec: the length of n elements, and what they are (None for bytes that no writer makes)."""

    data_bytes: Callable[[int], int]
    elements: Callable[[bytes, int], Elements | None]
    scale_is_one: bool = False

    def fits(self, tensors: list[dict[str, Any]], layout: list[Tensor]) -> bool:
        """Whether an update's tensors are the layout's, in form: names, shapes, bytes, scales."""
        return len(tensors) == len(layout) and all(map(self._fits, tensors, layout))

    def _fits(self, tensor: dict[str, Any], spec: Tensor) -> bool:
        elements, scale = spec.end - spec.begin, tensor["scale"]
        if tensor["name"] != spec.name or tuple(tensor["shape"]) != spec.shape:
            return False
        if (
            len(tensor["data"]) != self.data_bytes(elements)
            or self.elements(tensor["data"], elements) is None
        ):
            return False
        # A scale that is no number at all is ``not_finite``, not a matter of form.
        return not self.scale_is_one or scale == 1.0 or not math.isfinite(scale) or scale < 0.0

    def parts(self, tensors: list[dict[str, Any]], layout: list[Tensor]) -> list[Elements]:
        """The elements of tensors that fit."""
        found = [
            self.elements(tensor["data"], spec.end - spec.begin)
            for tensor, spec in zip(tensors, layout, strict=True)
        ]
        return [one for one in found if one is not None]


def _int8(data: bytes, elements: int) -> Elements | None:
    return np.frombuffer(data, dtype=np.int8, count=elements)


def _float32(data: bytes, elements: int) -> Elements | None:
    return np.frombuffer(data, dtype="<f4", count=elements)


def _int4(data: bytes, elements: int) -> Elements | None:
    """Two a byte, low half first, two's complement; -8 and padding other than 0 are not written."""
    halves = [half for byte in data for half in (byte & 15, byte >> 4)]
    if 8 in halves or any(halves[elements:]):  # noqa: PLR2004 (the half of -8)
        return None
    return np.array([half - 16 if half > 7 else half for half in halves[:elements]], dtype=np.int8)  # noqa: PLR2004


FORMS: Final = {
    "int8": Form(lambda n: n, _int8),
    "float32": Form(lambda n: 4 * n, _float32, scale_is_one=True),
    "int4": Form(lambda n: (n + 1) // 2, _int4),
}
"""Every codec that this checker knows."""


def form_of(codec: str) -> Form:
    """The form of a codec that the policy takes; ``Damaged`` where this checker does not know it."""
    if codec not in FORMS:
        raise Damaged(f"the policy takes the codec {codec!r}, which this checker does not know")
    return FORMS[codec]
