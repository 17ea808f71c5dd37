"""How a delta travels: a device *encodes* it; the fold *views*, *measures* (norm, similarity) and *accumulates* it.

Sums are fixed-point int64 with ``2**exponent`` units to 1.0. What differs between codecs is each codec's own, see
``shape.Codec``; what is the same for all is here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregation.codecs.norms import norm_of
from aggregation.codecs.table import CODECS, CodecName, codec_named
from aggregation.reasons import Because, Reason, because

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from aggregation.codecs.direction import Direction
    from aggregation.codecs.shape import Elements, Float32Array, Int64Array
    from aggregation.layout import Layout


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """One tensor as it travels: ``data`` is what its codec makes of its elements, ``scale`` the value of one level."""

    name: str
    shape: tuple[int, ...]
    scale: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Delta:
    """A decoded delta: ``flat``, P elements as the codec's loops take them, and ``scales``, one float64 a tensor."""

    codec: CodecName
    flat: Elements
    scales: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Norm of a delta (model units), which tensors hold anything but zeros, and its cosine with the last step.

    ``cosine`` is in [-1, 1], and 0.0 where either is zero or there was no step.
    """

    norm: float
    nonzero: tuple[bool, ...]
    cosine: float = 0.0


def encode_delta(
    delta: Float32Array, layout: Layout, codec: CodecName, rng: np.random.Generator
) -> list[EncodedTensor]:
    """Encode ``delta`` float32[P]; ``rng`` supplies stochastic rounding.

    Raises ``UsageProblem`` (FLV-2006) for a codec that there is none of.
    """
    encode, edges = codec_named(codec).encode, layout.starts.tolist()
    return [
        EncodedTensor(spec.name, spec.shape, *encode(delta[edges[t] : edges[t + 1]], rng))
        for t, spec in enumerate(layout.tensors)
    ]


def data_bytes(codec: CodecName, elements: int) -> int:
    """How many bytes a tensor of so many elements takes."""
    return CODECS[codec].data_bytes(elements)


def wrong_data(
    codec: CodecName, data: Sequence[bytes], scales: Sequence[float], layout: Layout
) -> Because | None:
    """What is wrong with the form of an update's tensors; None where ``view_delta`` may have them.

    A scale that is no number, or negative, is ``is_finite``'s matter.
    """
    rules = CODECS[codec]
    for spec, one in zip(layout.tensors, data, strict=True):
        expected = rules.data_bytes(spec.size)
        if len(one) != expected:
            return because(Reason.TENSOR_BYTES, spec.name, len(one), expected)
    problem = rules.data_problem(data, layout)
    for scale in scales:
        if problem:
            break
        if math.isfinite(scale) and scale >= 0.0:
            problem = rules.scale_problem(scale)
    return problem


def view_delta(codec: CodecName, data: Sequence[bytes], scales: tuple[float, ...], layout: Layout) -> Delta:
    """Join the tensors' bytes into one flat array; ``wrong_data`` has found nothing wrong with them."""
    return Delta(codec, CODECS[codec].view(data, layout), scales)


def is_finite(delta: Delta) -> bool:
    """Whether all scales are finite and not negative, and no element is NaN or infinite."""
    if not all(math.isfinite(scale) and scale >= 0.0 for scale in delta.scales):
        return False
    return CODECS[delta.codec].is_finite(delta.flat)


def measure(delta: Delta, layout: Layout, reference: Direction | None = None) -> Measured:
    """The L2 norm of the delta, which of its tensors hold anything, and its cosine with ``reference``, in one pass."""
    rules = CODECS[delta.codec]
    if reference is None:
        squares = rules.squares(delta.flat, layout)
        return Measured(norm_of(delta.scales, squares), tuple(bool(square) for square in squares))
    squares, dots = rules.squares_and_dots(delta.flat, reference.q, layout)
    norm = norm_of(delta.scales, squares)
    return Measured(norm, tuple(bool(square) for square in squares), _cosine_of(delta, norm, reference, dots))


def cosine(delta: Delta, norm: float, reference: Direction, layout: Layout) -> float:
    """Cosine similarity of the delta with the reference, in [-1, 1]; 0.0 when either is zero."""
    return _cosine_of(delta, norm, reference, CODECS[delta.codec].dots(delta.flat, reference.q, layout))


def _cosine_of(delta: Delta, norm: float, reference: Direction, dots: Sequence[float]) -> float:
    if norm == 0.0 or reference.norm == 0.0:
        return 0.0
    total = 0.0
    for scale, reference_scale, dot in zip(delta.scales, reference.scales, dots, strict=True):
        if dot:
            total += scale * reference_scale * float(dot)
    return max(-1.0, min(1.0, total / norm / reference.norm))


def accumulate_into(
    sums: Int64Array,
    delta: Delta,
    measured: Measured,
    layout: Layout,
    *,
    weight: float,
    clip: float,
    exponent: int,
) -> None:
    """Add ``weight * clip * delta`` to ``sums`` int64[P] in units of 2**-exponent."""
    CODECS[delta.codec].accumulate_into(
        sums,
        delta.flat,
        layout,
        scales=delta.scales,
        nonzero=measured.nonzero,
        factor=weight * clip,
        unit=float(1 << exponent),
    )
