"""The merge's loops, compiled by numba. Their twins: ``tests/naive.py``, and the checker's arithmetic."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs.compiled import compiled

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

CACHED: Final = __name__ == "aggregation.server.kernels"
"""See ``codecs.kernels.CACHED``."""


@compiled(cached=CACHED)
def add_into(total: Int64Array, one: Int64Array) -> tuple[int, int]:
    """``total[i] += one[i]``, int64[n] both; the least and the greatest element of ``one``, not above and below 0."""
    low, high = np.int64(0), np.int64(0)
    for i in range(total.shape[0]):
        value = one[i]
        total[i] += value
        low = min(low, value)
        high = max(high, value)
    return low, high  # type: ignore[return-value]  # numba returns ints


@compiled(cached=CACHED)
def add_late_into(total: Int64Array, one: Int64Array, weight: int) -> tuple[int, int]:
    """``total[i] += (one[i] · weight + 2**15) >> 16``, int64[n] both, ``weight`` 0 to 65536.

    one[i] is high · 2**16 + low, so that is high · weight + (low · weight + 2**15 >> 16): nothing leaves int64. Returns
    the least and the greatest of what was added, not above and below 0.
    """
    least, greatest = np.int64(0), np.int64(0)
    for i in range(total.shape[0]):
        high, low = one[i] >> np.int64(16), one[i] & np.int64(0xFFFF)
        value = high * np.int64(weight) + ((low * np.int64(weight) + np.int64(32768)) >> np.int64(16))
        total[i] += value
        least = min(least, value)
        greatest = max(greatest, value)
    return least, greatest  # type: ignore[return-value]  # numba returns ints


@compiled(cached=CACHED)
def mean_into(mean: Float32Array, total: Int64Array, one_over_unit: float, divisor: float) -> None:
    """``mean[i]`` becomes float32(float64(total[i]) / unit / divisor), float32[n] of int64[n].

    The unit is a power of two, so that a product with its inverse is the same number as a quotient.
    """
    for i in range(mean.shape[0]):
        mean[i] = np.float32(np.float64(total[i]) * one_over_unit / divisor)


@compiled(cached=CACHED)
def _whole(value: float, unit: float) -> int:
    """rint(value · unit), half to even."""
    return np.int64(np.rint(np.float64(value) * unit))  # type: ignore[return-value]  # numba returns an int


@compiled(cached=CACHED)
def _size(bits: np.int32) -> np.int32:
    """All of a float32 but its sign."""
    return bits & np.int32(0x7FFFFFFF)


@compiled(cached=CACHED)
def add_models_into(
    sums: Int64Array,
    a: Float32Array,
    b: Float32Array,
    c: Float32Array,
    d: Float32Array,
    e: Float32Array,
    unit: float,
) -> int:
    """``sums[i] += rint(x[i] · unit)`` for each x of five models, float32[n], in one pass over int64[n].

    Returns the bits of the largest |x[i]|, those of a NaN being above all: where the caller finds it too large, the
    sums are worth nothing.
    """
    a_bits, b_bits, c_bits = a.view(np.int32), b.view(np.int32), c.view(np.int32)
    d_bits, e_bits = d.view(np.int32), e.view(np.int32)
    largest = np.int32(0)
    for i in range(sums.shape[0]):
        of_two = _whole(a[i], unit) + _whole(b[i], unit)
        of_three = _whole(c[i], unit) + _whole(d[i], unit) + _whole(e[i], unit)
        sums[i] += of_two + of_three
        of_five = max(
            _size(a_bits[i]), _size(b_bits[i]), _size(c_bits[i]), _size(d_bits[i]), _size(e_bits[i])
        )
        largest = max(largest, of_five)
    return largest  # type: ignore[return-value]  # numba returns an int


@compiled(cached=CACHED)
def products(sums: Int64Array, direction: Float64Array) -> tuple[float, float, float]:
    """Σ m g, Σ m m and Σ g g of float64(sums) int64[n] and ``direction`` float64[n], in order."""
    along, squares, others = 0.0, 0.0, 0.0
    for i in range(sums.shape[0]):
        m, g = np.float64(sums[i]), direction[i]
        along += m * g
        squares += m * m
        others += g * g
    return along, squares, others


@compiled(cached=CACHED)
def turn_into(
    made: Int64Array, sums: Int64Array, direction: Float64Array, kept: float, added: float, most: float
) -> None:
    """``made[i]`` becomes rint(kept · sums[i] + added · direction[i]), within ±``most``; int64[n] of int64[n]."""
    for i in range(made.shape[0]):
        value = kept * np.float64(sums[i]) + added * direction[i]
        made[i] = np.int64(np.rint(min(most, max(-most, value))))


GRAM_BLOCK: Final = 128
"""So many elements of all buckets are turned into columns at once: of 32 buckets as much as a core's L1 cache holds."""


@compiled(cached=CACHED)
def gram_into(gram: Float64Array, sums: Int64Array, rows: Int64Array) -> None:
    """``gram[a, b]`` becomes Σ_i float64(sums[rows[a], i]) · float64(sums[rows[b], i]), in the order of i.

    ``gram`` is float64[m, m], zeros, with m the least multiple of 4 that is no less than ``rows``' int64[n]; beyond n
    it stays 0. ``sums`` is int64[B, W]. One pass: a block of all rows is made float64 once, an element's side by side,
    and sixteen products are added at a time, each to a sum of its own.
    """
    many, padded, size = rows.shape[0], gram.shape[0], sums.shape[1]
    block = np.zeros((GRAM_BLOCK, padded), dtype=np.float64)
    for begin in range(0, size, GRAM_BLOCK):
        count = min(GRAM_BLOCK, size - begin)
        for b in range(many):
            row = sums[rows[b]]
            for i in range(count):
                block[i, b] = np.float64(row[begin + i])
        for a in range(0, padded, 4):
            for b in range(a, padded, 4):
                _add_products(gram[a : a + 4, b : b + 4], block[:count, a : a + 4], block[:count, b : b + 4])
    for a in range(padded):
        for b in range(a):
            gram[a, b] = gram[b, a]


@compiled(cached=CACHED)
def _add_products(gram: Float64Array, left: Float64Array, right: Float64Array) -> None:
    """``gram[j, k] += left[i, j] · right[i, k]`` for i in order; float64[4, 4] of two float64[n, 4].

    Each sum is a name of its own, so that it stays in a register.
    """
    s00, s01, s02, s03 = gram[0, 0], gram[0, 1], gram[0, 2], gram[0, 3]
    s10, s11, s12, s13 = gram[1, 0], gram[1, 1], gram[1, 2], gram[1, 3]
    s20, s21, s22, s23 = gram[2, 0], gram[2, 1], gram[2, 2], gram[2, 3]
    s30, s31, s32, s33 = gram[3, 0], gram[3, 1], gram[3, 2], gram[3, 3]
    for i in range(left.shape[0]):
        x0, x1, x2, x3 = left[i, 0], left[i, 1], left[i, 2], left[i, 3]
        y0, y1, y2, y3 = right[i, 0], right[i, 1], right[i, 2], right[i, 3]
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    gram[0, 0], gram[0, 1], gram[0, 2], gram[0, 3] = s00, s01, s02, s03
    gram[1, 0], gram[1, 1], gram[1, 2], gram[1, 3] = s10, s11, s12, s13
    gram[2, 0], gram[2, 1], gram[2, 2], gram[2, 3] = s20, s21, s22, s23
    gram[3, 0], gram[3, 1], gram[3, 2], gram[3, 3] = s30, s31, s32, s33


@compiled(cached=CACHED)
def combine_into(
    made: Int64Array, sums: Int64Array, rows: Int64Array, factors: Float64Array, most: float
) -> None:
    """``made[i]`` becomes rint(Σ_b factors[b] · sums[rows[b], i]), b ascending, within ±``most``; int64[W]."""
    size = made.shape[0]
    block = np.empty(GRAM_BLOCK, dtype=np.float64)
    for begin in range(0, size, GRAM_BLOCK):
        count = min(GRAM_BLOCK, size - begin)
        block[:count] = 0.0
        for b in range(rows.shape[0]):
            row, factor = sums[rows[b]], factors[b]
            for i in range(count):
                block[i] += factor * np.float64(row[begin + i])
        for i in range(count):
            made[begin + i] = np.int64(np.rint(min(most, max(-most, block[i]))))
