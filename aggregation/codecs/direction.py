"""A step as a direction in fixed point, which deltas are compared with: int8 a tensor, whatever codec they came in.

A tensor's scale is max|x| / 127 of its elements x = after - before in float64, its levels are rint(x / scale), half to
even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.codecs.norms import norm_of

if TYPE_CHECKING:
    from aggregation.codecs.shape import Float32Array, Float64Array, Int8Array
    from aggregation.layout import Layout

DIRECTION_LEVELS: Final = 127


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction in fixed point: tensor t is ``scales[t] * q``. ``q`` int8[P], ``norm`` in model units."""

    q: Int8Array
    scales: tuple[float, ...]
    norm: float


class Peaks:
    """The largest size of a step in each tensor of a layout, taken in piece by piece, in order."""

    def __init__(self, layout: Layout) -> None:
        self._starts = layout.starts
        self._bits = np.zeros(len(layout.tensors), dtype=np.int64)
        self._begin = 0
        self._tensor = 0

    def take(self, after: Float32Array | Float64Array, before: Float32Array | Float64Array) -> None:
        """Take the next elements in, as they are after and before the step."""
        from aggregation.codecs import kernels

        self._tensor = kernels.widen_peaks(self._bits, after, before, self._starts, self._begin, self._tensor)
        self._begin += after.size

    def scales(self) -> Float64Array:
        """float64[T]: max|x| / 127 of each tensor; NaN where an element is NaN."""
        return self._bits.view(np.float64) / DIRECTION_LEVELS


def direction_of(step: Float64Array, layout: Layout) -> Direction:
    """The fixed-point direction of ``step`` float64[P]."""
    peaks, origin = Peaks(layout), np.zeros_like(step)
    peaks.take(step, origin)
    return direction_between(step, origin, peaks, layout)


def direction_between(
    after: Float32Array | Float64Array, before: Float32Array | Float64Array, peaks: Peaks, layout: Layout
) -> Direction:
    """The direction from ``before`` to ``after``, both float32[P] or both float64[P]; ``peaks`` has taken all in."""
    from aggregation.codecs import kernels

    scales = peaks.scales()
    q = np.empty(layout.parameters, dtype=np.int8)
    squares = np.empty(len(layout.tensors), dtype=np.int64)
    kernels.direction_into(q, squares, after, before, layout.starts, scales)
    known = tuple(scales.tolist())
    return Direction(q, known, norm_of(known, squares.tolist()))


def direction_from(q: Int8Array, scales: tuple[float, ...], layout: Layout) -> Direction:
    """A direction from its stored parts; the norm is derived, never stored."""
    from aggregation.codecs import kernels

    squares = np.empty(len(layout.tensors), dtype=np.int64)
    kernels.squares_int8(q, layout.starts, squares)
    return Direction(q, scales, norm_of(scales, squares.tolist()))
