"""A step as a direction in fixed point, which deltas are compared with: int8 a tensor, whatever codec they came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.codecs.norms import norm_of

if TYPE_CHECKING:
    from aggregation.codecs.shape import Float64Array, Int8Array
    from aggregation.layout import Layout

DIRECTION_LEVELS: Final = 127


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction in fixed point: tensor t is ``scales[t] * q``. ``q`` int8[P], ``norm`` in model units."""

    q: Int8Array
    scales: tuple[float, ...]
    norm: float


def direction_of(step: Float64Array, layout: Layout) -> Direction:
    """The fixed-point direction of ``step`` float64[P].

    Int8 a tensor, scale = max|x| / 127, rounded half to even.
    """
    q = np.zeros(layout.parameters, dtype=np.int8)
    scales, edges = [], layout.starts.tolist()
    for t in range(len(layout.tensors)):
        part = step[edges[t] : edges[t + 1]]
        scale = float(np.max(np.abs(part))) / DIRECTION_LEVELS
        if scale > 0.0:
            rounded = np.clip(np.rint(part / scale), -DIRECTION_LEVELS, DIRECTION_LEVELS)
            q[edges[t] : edges[t + 1]] = rounded.astype(np.int8)
        scales.append(scale)
    return direction_from(q, tuple(scales), layout)


def direction_from(q: Int8Array, scales: tuple[float, ...], layout: Layout) -> Direction:
    """A direction from its stored parts; the norm is derived, never stored."""
    from aggregation.codecs import kernels

    squares = np.empty(len(layout.tensors), dtype=np.int64)
    kernels.squares_int8(q, layout.starts, squares)
    return Direction(q, scales, norm_of(scales, squares.tolist()))
