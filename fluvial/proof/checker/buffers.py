"""Buffers, as docs/architecture.md and ADR 18 say: values as they are, summed exactly, averaged by staleness weight.

An element's sum is a whole number of 2^-149, in ten digits of 32 bits; each digit has the sign of the value that it
came from, and digits of many updates are added without carry.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np

from fluvial.proof.checker.arithmetic import Ints, Model, Tensor

DIGITS: Final = 10
DIGIT_BITS: Final = 32
UNIT: Final = 149
MANTISSA_BITS: Final = 24


def fit(tensors: list[dict[str, Any]], layout: list[Tensor]) -> bool:
    """Whether an update's buffers are the layout's in form: names, shapes, four bytes an element, scales of 1.

    A scale that is no number, or negative, is ``not_finite``, not a matter of form.
    """
    return len(tensors) == len(layout) and all(
        (tensor["name"], tuple(tensor["shape"])) == (spec.name, spec.shape)
        and len(tensor["data"]) == 4 * (spec.end - spec.begin)
        and (tensor["scale"] == 1.0 or not np.isfinite(tensor["scale"]) or tensor["scale"] < 0.0)
        for tensor, spec in zip(tensors, layout, strict=True)
    )


def values_in(tensors: list[dict[str, Any]]) -> list[Model]:
    """The elements of buffers that fit, a flat array a tensor."""
    return [np.frombuffer(tensor["data"], dtype="<f4") for tensor in tensors]


def out_of_range(values: list[Model], layout: list[Tensor]) -> bool:
    """Whether an element is below 0 of which the task says that it makes no sense."""
    return any(spec.nonnegative and (part < 0).any() for part, spec in zip(values, layout, strict=True))


def digits_of(values: Model, weight: int) -> Ints:
    """What ``values`` float32[n] add to the sums with the weight, units of 1/65536: int64[10 · n]."""
    fraction, exponent = np.frexp(np.abs(values).astype(np.float64))
    whole = np.ldexp(fraction, MANTISSA_BITS).astype(np.uint64)
    # The value is whole * 2^(shift - 149). Below the normal numbers the shift is negative, and the bits that go are 0.
    shift = exponent.astype(np.int64) - MANTISSA_BITS + UNIT
    whole >>= np.maximum(-shift, 0).astype(np.uint64)
    product, shift = whole * np.uint64(weight), np.maximum(shift, 0)
    found = np.zeros((values.size, DIGITS), dtype=np.int64)
    for k in range(DIGITS):
        down = DIGIT_BITS * k - shift
        right = product >> np.clip(down, 0, 63).astype(np.uint64)
        left = product << np.clip(-down, 0, 63).astype(np.uint64)
        digit = np.where(down >= 0, right, left) & np.uint64(2**DIGIT_BITS - 1)
        found[:, k] = np.where(down > -DIGIT_BITS, digit, np.uint64(0)).astype(np.int64)
    return (found * np.where(values < 0, -1, 1)[:, None]).reshape(-1)


def means(sums: Ints, weight_total: int) -> Model:
    """The buffers of a version, float32: each the float32 nearest to its exact mean, half to even."""
    return np.array([mean_of(one, weight_total) for one in wholes(sums)], dtype=np.float32)


def wholes(sums: Ints) -> list[int]:
    """The exact sums in units of 2^-149, of their digits int64[10 · n]."""
    rows: list[list[int]] = sums.reshape(-1, DIGITS).tolist()
    return [sum(digit * 2 ** (DIGIT_BITS * k) for k, digit in enumerate(row)) for row in rows]


def mean_of(whole: int, weight_total: int) -> float:
    """The float32 nearest to ``whole`` · 2^-149 / ``weight_total``."""
    return _nearest(Fraction(whole, weight_total * 2**UNIT))


def _nearest(exact: Fraction) -> float:
    """Of the float32 around a number the nearest; of two that are as near, the one whose last bit is 0."""
    about = np.float32(float(exact))
    around = [np.nextafter(about, np.float32(-np.inf)), about, np.nextafter(about, np.float32(np.inf))]
    near = min(
        (one for one in around if np.isfinite(one)),
        key=lambda one: (abs(Fraction(float(one)) - exact), int(one.view(np.uint32)) & 1),
    )
    return float(near) + 0.0  # no minus before a zero
