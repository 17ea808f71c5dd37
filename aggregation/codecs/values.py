"""How the section ``buffers`` travels and is averaged: exact float32 values, summed without any rounding.

A running statistic is a value and no step: a delta of it would be clipped with the weights' and overshoot when it is
stale. So an update holds the device's own values, whatever its codec: four bytes an element, little-endian, scale 1.
A version's are their mean by staleness weight, Σ w·v / Σ w, which lies between the least and the greatest of them.

Every finite float32 is a whole number of 2**-149. The sum of an element is such a number in ``VALUE_DIGITS`` digits of
32 bits, each in an int64 of its own with its sign and without carry: sums add element by element like the weights', in
any order and grouping. (2**24 - 1) · 2**253 · 2**16 < 2**293 takes ten digits; an int64 holds 2**31 of the largest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.codecs.delta import EncodedTensor, encode_delta
from aggregation.errors import IntegrityProblem
from aggregation.layout import VALUE_DIGITS
from aggregation.reasons import Because, Reason, because

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.codecs.shape import Float32Array, Int64Array
    from aggregation.codecs.table import CodecName
    from aggregation.layout import Layout

VALUE_BYTES: Final = 4
_DIGIT_BITS: Final = 32
_UNIT_EXPONENT: Final = -149
"""The least positive float32 is 2 to this power, and all others are multiples of it."""
_SIGNIFICANT_BITS: Final = 24
LARGEST_UNITS: Final = (2**24 - 1) << 253
"""The largest finite float32, in units of the least positive one."""


def update_of(local: Float32Array, base: Float32Array, layout: Layout) -> Float32Array:
    """What a device publishes after training from ``base`` float32[P] to ``local``, a model's or all P: float32[P].

    local - base of the weights, and the buffers as they are. Control variates stay as they are: a delta of 0.
    """
    update = np.zeros(layout.parameters, dtype=np.float32)
    weights, model = layout.trainable.parameters, layout.model_parameters
    update[:weights] = local[:weights] - base[:weights]
    update[weights:model] = local[weights:model]
    return update


def encode_update(
    update: Float32Array, layout: Layout, codec: CodecName, rng: np.random.Generator
) -> list[EncodedTensor]:
    """Encode what ``update_of`` gives: weights by ``codec``, the buffers, then control variates by ``codec``.

    ``rng`` as in ``encode_delta``.
    """
    weights, model = layout.trainable.parameters, layout.model_parameters
    tensors = encode_delta(update[:weights], layout.trainable, codec, rng)
    tensors += encode_values(update[weights:model], layout.buffers)
    return tensors + encode_delta(update[model:], layout.control, codec, rng)


def encode_values(values: Float32Array, buffers: Layout) -> list[EncodedTensor]:
    """Encode ``values`` float32[B] of the layout ``buffers``."""
    edges = buffers.starts.tolist()
    return [
        EncodedTensor(spec.name, spec.shape, 1.0, values[edges[t] : edges[t + 1]].astype("<f4").tobytes())
        for t, spec in enumerate(buffers.tensors)
    ]


def wrong_values(data: Sequence[bytes], scales: Sequence[float], buffers: Layout) -> Because | None:
    """What is wrong with the form of an update's buffers; None where ``view_values`` may have them.

    A scale that is no number, or negative, is ``are_finite``'s matter.
    """
    for spec, one, scale in zip(buffers.tensors, data, scales, strict=True):
        if len(one) != VALUE_BYTES * spec.size:
            return because(Reason.BUFFER_BYTES, spec.name, len(one), VALUE_BYTES * spec.size)
        if scale != 1.0 and math.isfinite(scale) and scale >= 0.0:
            return because(Reason.BUFFER_SCALE, spec.name)
    return None


def view_values(data: Sequence[bytes]) -> Float32Array:
    """The buffers' elements, float32[B]; ``wrong_values`` has found nothing wrong with them."""
    return np.frombuffer(b"".join(data), dtype="<f4")


def are_finite(values: Float32Array, scales: Sequence[float]) -> bool:
    """Whether no element is NaN or infinite, and no scale either, nor negative."""
    if not all(math.isfinite(scale) and scale >= 0.0 for scale in scales):
        return False
    if not values.size:  # a model without buffers loads no loop for them
        return True
    from aggregation.codecs import kernels

    return bool(kernels.all_finite_float32(values))


def below_zero(values: Float32Array, buffers: Layout) -> str:
    """The name of the first tensor that is to be nonnegative and has an element below 0; "" where there is none."""
    edges = buffers.starts.tolist()
    for t, spec in enumerate(buffers.tensors):
        if spec.nonnegative and bool(np.any(values[edges[t] : edges[t + 1]] < 0.0)):
            return spec.name
    return ""


def accumulate_values_into(sums: Int64Array, values: Float32Array, weight: int) -> None:
    """Add ``weight`` (units of 1/65536, 1 to 65536) times ``values`` float32[B], finite, to ``sums`` int64[10·B]."""
    if not values.size:
        return
    from aggregation.codecs import kernels

    kernels.accumulate_values_into(sums, values.view(np.uint32), VALUE_DIGITS, weight)


def mean_of_values(sums: Int64Array, weight_total: int) -> Float32Array:
    """The mean float32[B] of values whose sums are int64[10·B] and whose weights add up to ``weight_total``, 1 or more.

    Correctly rounded, half to even. ``IntegrityProblem`` (FLV-3004) for sums that no finite values have.
    """
    return mean_of_groups([(sums, weight_total, 1)])


def mean_of_groups(groups: Sequence[tuple[Int64Array, int, int]]) -> Float32Array:
    """The same of several (sums, weight_total, factor), of each of which each weight counts ``factor`` times.

    Exact up to the one rounding: so a mean of equal values is that value, whatever the factors are.
    """
    denominator = sum(weight_total * factor for _, weight_total, factor in groups)
    rows = zip(*(sums.reshape(-1, VALUE_DIGITS).tolist() for sums, _, _ in groups), strict=True)
    factors = [factor for _, _, factor in groups]
    numerators = (
        sum(joined(digits) * factor for digits, factor in zip(row, factors, strict=True)) for row in rows
    )
    means = [_nearest_float32(numerator, denominator) for numerator in numerators]
    with np.errstate(over="ignore"):
        found = np.array(means, dtype=np.float32)
    if not np.isfinite(found).all():
        raise IntegrityProblem(
            "FLV-3004", "the sums of a version's buffers are beyond what finite values add up to"
        )
    return found


def joined(digits: list[int]) -> int:
    """The number that an element's digits come to, the lowest first, in units of the least positive float32."""
    total = 0
    for digit in reversed(digits):
        total = (total << _DIGIT_BITS) + digit
    return total


def _nearest_float32(numerator: int, denominator: int) -> float:
    """The float32 nearest to numerator / denominator · 2**-149, half to even, in integers up to the last step."""
    size = abs(numerator)
    # So many bits are left out that at most 24 remain; below the least normal number, none are.
    left_out = max(0, size.bit_length() - denominator.bit_length() - _SIGNIFICANT_BITS)
    if size >= denominator << (left_out + _SIGNIFICANT_BITS):
        left_out += 1
    unit = denominator << left_out
    whole, rest = divmod(size, unit)
    whole += 2 * rest > unit or (2 * rest == unit and whole % 2 == 1)
    return math.copysign(math.ldexp(whole, left_out + _UNIT_EXPONENT), numerator) if whole else 0.0
