"""How a delta travels: ``int8`` (a scale per tensor, stochastic rounding on the device) and ``float32``.

A device *encodes* (``encode_delta``); the fold *views* (``view_delta``), *measures* (norm, similarity) and
*accumulates*. Sums are fixed-point int64 with ``2**exponent`` units to 1.0:

* ``int8``: element q of tensor t adds ``q * c_t`` with ``c_t = rint(weight * clip * scale_t * 2**exponent)``;
* ``float32``: element x adds ``rint(x * (weight * clip * 2**exponent))``.

Stochastic rounding is unbiased: E[q * scale] = x (Alistarh et al. 2017, QSGD, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout

CodecName = str
CODECS: tuple[CodecName, ...] = ("int8", "float32")
INT8_LEVELS = 127


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """One tensor as it travels: ``data`` is int8[size], or little-endian float32[size] with ``scale`` 1.0."""

    name: str
    shape: tuple[int, ...]
    scale: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Delta:
    """A decoded delta: ``flat`` int8[P] or float32[P], and ``scales``, one float64 a tensor."""

    codec: CodecName
    flat: npt.NDArray[Any]
    scales: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction in fixed point: tensor t is ``scales[t] * q``. ``q`` int8[P], ``norm`` in model units."""

    q: npt.NDArray[np.int8]
    scales: tuple[float, ...]
    norm: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Norm of a delta (model units) and which tensors hold anything but zeros."""

    norm: float
    nonzero: tuple[bool, ...]


def encode_delta(
    delta: npt.NDArray[np.float32], layout: Layout, codec: CodecName, rng: np.random.Generator
) -> list[EncodedTensor]:
    """Encode ``delta`` float32[P].

    ``rng`` supplies the stochastic rounding of ``int8``; ``float32`` uses none.
    """
    encoded = []
    for t, spec in enumerate(layout.tensors):
        part = delta[layout.starts[t] : layout.starts[t + 1]]
        if codec == "float32":
            encoded.append(EncodedTensor(spec.name, spec.shape, 1.0, part.astype("<f4").tobytes()))
            continue
        scale = float(np.max(np.abs(part))) / INT8_LEVELS
        if scale > 0.0:
            # x lies between floor(x) and floor(x)+1: it goes up with the probability of its fractional part.
            q = np.floor(part.astype(np.float64) / scale + rng.random(part.size))
            data = np.clip(q, -INT8_LEVELS, INT8_LEVELS).astype(np.int8).tobytes()
        else:
            data = bytes(spec.size)
        encoded.append(EncodedTensor(spec.name, spec.shape, scale, data))
    return encoded


def view_delta(codec: CodecName, data: Sequence[bytes], scales: tuple[float, ...]) -> Delta:
    """Join the tensors' bytes into one flat array; the caller has checked every length against the layout."""
    joined = data[0] if len(data) == 1 else b"".join(data)
    dtype = np.dtype(np.int8) if codec == "int8" else np.dtype("<f4")
    return Delta(codec, np.frombuffer(joined, dtype=dtype), scales)


def data_bytes(codec: CodecName, elements: int) -> int:
    """How many bytes ``elements`` elements take."""
    return elements if codec == "int8" else 4 * elements


def is_finite(delta: Delta) -> bool:
    """Whether all scales are finite and not negative, and no float32 element is NaN or infinite."""
    from aggregation.codecs import kernels

    if not all(math.isfinite(scale) and scale >= 0.0 for scale in delta.scales):
        return False
    return delta.codec == "int8" or bool(kernels.all_finite_float32(delta.flat))


def measure(delta: Delta, layout: Layout) -> Measured:
    """The L2 norm, √(Σ_t scale_t² · Σ q²), the tensors in layout order, in float64."""
    from aggregation.codecs import kernels

    tensors = len(layout.tensors)
    squares: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    if delta.codec == "int8":
        squares = np.empty(tensors, dtype=np.int64)
        kernels.squares_int8(delta.flat, layout.starts, squares)
    else:
        squares = np.empty(tensors, dtype=np.float64)
        kernels.squares_float32(delta.flat, layout.starts, squares)
    parts = squares.tolist()
    total = 0.0
    for scale, square in zip(delta.scales, parts, strict=True):
        if square:  # a huge scale over zeros is still zero, not inf * 0
            total += scale * scale * float(square)
    return Measured(math.sqrt(total), tuple(bool(square) for square in parts))


def cosine(delta: Delta, norm: float, reference: Direction, layout: Layout) -> float:
    """Cosine similarity of the delta with the reference, in [-1, 1]; 0.0 when either is zero."""
    from aggregation.codecs import kernels

    if norm == 0.0 or reference.norm == 0.0:
        return 0.0
    tensors = len(layout.tensors)
    dots: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    if delta.codec == "int8":
        dots = np.empty(tensors, dtype=np.int64)
        kernels.dots_int8(delta.flat, reference.q, layout.starts, dots)
    else:
        dots = np.empty(tensors, dtype=np.float64)
        kernels.dots_float32(delta.flat, reference.q, layout.starts, dots)
    total = 0.0
    for scale, reference_scale, dot in zip(delta.scales, reference.scales, dots.tolist(), strict=True):
        if dot:
            total += scale * reference_scale * float(dot)
    return max(-1.0, min(1.0, total / norm / reference.norm))


def accumulate_into(
    sums: npt.NDArray[np.int64],
    delta: Delta,
    measured: Measured,
    layout: Layout,
    *,
    weight: float,
    clip: float,
    exponent: int,
) -> None:
    """Add ``weight * clip * delta`` to ``sums`` int64[P] in units of 2**-exponent."""
    from aggregation.codecs import kernels

    factor = weight * clip
    unit = float(1 << exponent)
    if delta.codec == "float32":
        kernels.accumulate_float32_into(sums, delta.flat, factor * unit)
        return
    coefficients = np.array(
        [
            round(factor * scale * unit) if nonzero else 0
            for scale, nonzero in zip(delta.scales, measured.nonzero, strict=True)
        ],
        dtype=np.int64,
    )
    kernels.accumulate_int8_into(sums, delta.flat, layout.starts, coefficients)


def direction_of(step: npt.NDArray[np.float64], layout: Layout) -> Direction:
    """The fixed-point direction of ``step`` float64[P].

    Int8 a tensor, scale = max|x| / 127, rounded half to even.
    """
    q = np.zeros(layout.parameters, dtype=np.int8)
    scales = []
    for t in range(len(layout.tensors)):
        part = step[layout.starts[t] : layout.starts[t + 1]]
        scale = float(np.max(np.abs(part))) / INT8_LEVELS
        if scale > 0.0:
            q[layout.starts[t] : layout.starts[t + 1]] = np.clip(
                np.rint(part / scale), -INT8_LEVELS, INT8_LEVELS
            ).astype(np.int8)
        scales.append(scale)
    return direction_from(q, tuple(scales), layout)


def direction_from(q: npt.NDArray[np.int8], scales: tuple[float, ...], layout: Layout) -> Direction:
    """A reference from its stored parts; the norm is derived, never stored."""
    norm = measure(Delta("int8", q, scales), layout).norm
    return Direction(q, scales, norm)
