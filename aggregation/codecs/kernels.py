"""The inner loops, compiled by numba. Each has a slow, obvious twin in ``tests/naive.py``.

No fast-math and no parallel reductions: integer loops are exact in any order, and floating-point loops run in
the written order with correctly rounded operations only, so every machine gets the same bits.

Every loop runs over a slice of its tensor from 0: numba then sees that no index can be negative, and LLVM
vectorizes the integer loops (15 times faster for the dot product). The int8 sums of products run in blocks
that fit int32.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs.compiled import compiled

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
AnyFloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

CACHED: Final = __name__ == "aggregation.codecs.kernels"
"""numba's cache on disk holds module names: a process that knows this module by another one (ADR 15) keeps off."""

DIGIT_BITS: Final = 32
DIGIT_MASK: Final = (1 << DIGIT_BITS) - 1
MANTISSA_BITS: Final = 23
INT32_BLOCK: Final = 1 << 16
MAGNITUDE_BITS: Final = (1 << 63) - 1
"""All of a float64 but its sign."""
LOW_HALF: Final = 0x0F
UNUSED_HALF: Final = 0x08
"""The half byte of -8, which is the sign bit alone: flipping it and taking 8 away gives a half its sign."""


@compiled(cached=CACHED)
def _dot(a: Int8Array, b: Int8Array) -> int:
    """The exact sum of a·b. A product is at most 2**14, so a block of ``INT32_BLOCK`` of them fits int32."""
    total = np.int64(0)
    for start in range(0, a.shape[0], INT32_BLOCK):
        x = a[start : start + INT32_BLOCK]
        y = b[start : start + INT32_BLOCK]
        block = np.int32(0)
        for i in range(x.shape[0]):
            block = np.int32(block + np.int32(np.int32(x[i]) * np.int32(y[i])))
        total += np.int64(block)
    return total  # type: ignore[return-value]  # numba returns an int


@compiled(cached=CACHED)
def squares_int8(q: Int8Array, starts: Int64Array, squares: Int64Array) -> None:
    """``squares[t]`` becomes the exact sum of q² over tensor t.

    q: int8[P], starts: int64[T+1], squares: int64[T].
    """
    for t in range(squares.shape[0]):
        part = q[starts[t] : starts[t + 1]]
        squares[t] = _dot(part, part)


@compiled(cached=CACHED)
def dots_int8(q: Int8Array, reference: Int8Array, starts: Int64Array, dots: Int64Array) -> None:
    """``dots[t]`` becomes the exact sum of q·reference over tensor t.

    q, reference: int8[P], dots: int64[T].
    """
    for t in range(dots.shape[0]):
        dots[t] = _dot(q[starts[t] : starts[t + 1]], reference[starts[t] : starts[t + 1]])


@compiled(cached=CACHED)
def squares_and_dots_int8(
    q: Int8Array, reference: Int8Array, starts: Int64Array, squares: Int64Array, dots: Int64Array
) -> None:
    """``squares_int8`` and ``dots_int8`` in one pass over q.

    q, reference: int8[P], squares, dots: int64[T].
    """
    for t in range(squares.shape[0]):
        part = q[starts[t] : starts[t + 1]]
        along = reference[starts[t] : starts[t + 1]]
        square, dot = np.int64(0), np.int64(0)
        for start in range(0, part.shape[0], INT32_BLOCK):
            x = part[start : start + INT32_BLOCK]
            y = along[start : start + INT32_BLOCK]
            square_of_block, dot_of_block = np.int32(0), np.int32(0)
            for i in range(x.shape[0]):
                level = np.int32(x[i])
                square_of_block = np.int32(square_of_block + np.int32(level * level))
                dot_of_block = np.int32(dot_of_block + np.int32(level * np.int32(y[i])))
            square += np.int64(square_of_block)
            dot += np.int64(dot_of_block)
        squares[t] = square
        dots[t] = dot


@compiled(cached=CACHED)
def accumulate_int8_into(
    sums: Int64Array, q: Int8Array, starts: Int64Array, coefficients: Int64Array
) -> None:
    """``sums[i] += q[i] · coefficients[t]`` for every element i of every tensor t, exactly.

    sums: int64[P].
    """
    for t in range(coefficients.shape[0]):
        c = coefficients[t]
        part = q[starts[t] : starts[t + 1]]
        into = sums[starts[t] : starts[t + 1]]
        for i in range(part.shape[0]):
            into[i] += np.int64(part[i]) * c


@compiled(cached=CACHED)
def all_finite_float32(x: Float32Array) -> bool:
    """Whether no element of x: float32[P] is NaN or infinite."""
    bits = x.view(np.int32)
    worst = np.int32(0)
    for i in range(bits.shape[0]):
        # The exponent field is all ones for NaN and infinity only.
        worst = max(worst, bits[i] & np.int32(0x7F800000))
    return bool(worst != np.int32(0x7F800000))


@compiled(cached=CACHED)
def squares_float32(x: Float32Array, starts: Int64Array, squares: Float64Array) -> None:
    """``squares[t]`` becomes Σ x² over tensor t, in float64, element by element in order.

    squares: float64[T].
    """
    for t in range(squares.shape[0]):
        total = 0.0
        part = x[starts[t] : starts[t + 1]]
        for i in range(part.shape[0]):
            value = np.float64(part[i])
            total += value * value
        squares[t] = total


@compiled(cached=CACHED)
def dots_float32(x: Float32Array, reference: Int8Array, starts: Int64Array, dots: Float64Array) -> None:
    """``dots[t]`` becomes Σ x·reference over tensor t, in float64, element by element in order.

    dots: float64[T].
    """
    for t in range(dots.shape[0]):
        total = 0.0
        part = x[starts[t] : starts[t + 1]]
        along = reference[starts[t] : starts[t + 1]]
        for i in range(part.shape[0]):
            total += np.float64(part[i]) * np.float64(along[i])
        dots[t] = total


@compiled(cached=CACHED)
def squares_and_dots_float32(
    x: Float32Array, reference: Int8Array, starts: Int64Array, squares: Float64Array, dots: Float64Array
) -> None:
    """``squares_float32`` and ``dots_float32`` in one pass over x: each sum in its own order, as there.

    squares, dots: float64[T].
    """
    for t in range(squares.shape[0]):
        part = x[starts[t] : starts[t + 1]]
        along = reference[starts[t] : starts[t + 1]]
        square, dot = 0.0, 0.0
        for i in range(part.shape[0]):
            value = np.float64(part[i])
            square += value * value
            dot += value * np.float64(along[i])
        squares[t] = square
        dots[t] = dot


@compiled(cached=CACHED)
def accumulate_float32_into(sums: Int64Array, x: Float32Array, factor: float) -> None:
    """``sums[i] += rint(x[i] · factor)``: one float64 product, rounded half to even.

    sums: int64[P], x finite.
    """
    for i in range(x.shape[0]):
        sums[i] += np.int64(np.rint(np.float64(x[i]) * factor))


@compiled(cached=CACHED)
def accumulate_values_into(sums: Int64Array, bits: UInt32Array, digits: int, weight: int) -> None:
    """Add ``weight`` times each float32 to its ``digits`` int64 of ``sums``, exactly; see ``values``.

    sums: int64[digits·n]; bits: uint32[n], the elements as IEEE 754 has them, all finite; weight: 1 to 2**16.
    """
    for i in range(bits.shape[0]):
        into = sums[digits * i : digits * (i + 1)]
        pattern = np.int64(bits[i])
        exponent = (pattern >> MANTISSA_BITS) & 0xFF
        mantissa = pattern & 0x7FFFFF
        if exponent > 0:
            mantissa |= 0x800000
            exponent -= 1
        # The value is ± mantissa · 2**(exponent - 149): a product of 40 bits, moved by 0 to 31 bits over three digits.
        product = mantissa * np.int64(weight)
        digit, moved = exponent >> 5, exponent & 31
        low = (product & DIGIT_MASK) << moved
        high = ((product >> DIGIT_BITS) << moved) + (low >> DIGIT_BITS)
        sign = np.int64(1) - ((pattern >> 31) << 1)
        into[digit] += sign * (low & DIGIT_MASK)
        into[digit + 1] += sign * (high & DIGIT_MASK)
        into[digit + 2] += sign * (high >> DIGIT_BITS)


@compiled(cached=CACHED)
def first_wrong_int4(packed: UInt8Array, starts: Int64Array) -> int:
    """The first tensor with a half of -8, or with padding that is not 0; -1 if there is none.

    packed: uint8, each tensor's (n + 1) // 2 bytes one after another; starts: int64[T+1].
    """
    at = 0
    for t in range(starts.shape[0] - 1):
        size = starts[t + 1] - starts[t]
        part = packed[at : at + (size + 1) // 2]
        at += part.shape[0]
        wrong = 0
        for i in range(part.shape[0]):
            wrong |= int((part[i] & LOW_HALF) == UNUSED_HALF) | int(part[i] >> 4 == UNUSED_HALF)
        if size % 2 == 1:
            wrong |= int(part[-1] >> 4 != 0)
        if wrong:
            return t
    return -1


@compiled(cached=CACHED)
def unpack_int4_into(q: Int8Array, packed: UInt8Array, starts: Int64Array) -> None:
    """``q``: int8[P] becomes the halves of ``packed`` in two's complement, low ones first; see ``first_wrong_int4``."""
    at = 0
    for t in range(starts.shape[0] - 1):
        into = q[starts[t] : starts[t + 1]]
        whole = into.shape[0] // 2
        part = packed[at : at + (into.shape[0] + 1) // 2]
        at += part.shape[0]
        for i in range(whole):
            into[2 * i] = np.int8((part[i] & LOW_HALF) ^ UNUSED_HALF) - np.int8(8)
            into[2 * i + 1] = np.int8((part[i] >> 4) ^ UNUSED_HALF) - np.int8(8)
        if into.shape[0] % 2 == 1:
            into[-1] = np.int8((part[-1] & LOW_HALF) ^ UNUSED_HALF) - np.int8(8)


@compiled(cached=CACHED)
def widen_peaks(
    peaks: Int64Array,
    after: AnyFloatArray,
    before: AnyFloatArray,
    starts: Int64Array,
    begin: int,
    t: int,
) -> int:
    """Let the elements from ``begin`` on count in ``peaks``: for each tensor the largest |after - before|.

    peaks: int64[T], float64s as their bits without the sign: these are ordered as the numbers are, and a NaN is above
    all, so that a maximum of integers, which vectorizes, finds what numpy's maximum does. after, before: some elements,
    each read as float64; the first is one of tensor t. Returns the tensor of the element behind the last.
    """
    end = begin + after.shape[0]
    while begin < end:
        stop = min(starts[t + 1], end)
        first = after.shape[0] - (end - begin)
        x = after[first : first + stop - begin]
        y = before[first : first + stop - begin]
        peak = peaks[t]
        for i in range(x.shape[0]):
            bits = np.float64(np.float64(x[i]) - np.float64(y[i])).view(np.int64)
            peak = max(peak, bits & MAGNITUDE_BITS)
        peaks[t] = peak
        begin = stop
        if starts[t + 1] == stop:
            t += 1
    return t


@compiled(cached=CACHED)
def direction_into(
    q: Int8Array,
    squares: Int64Array,
    after: AnyFloatArray,
    before: AnyFloatArray,
    starts: Int64Array,
    scales: Float64Array,
) -> None:
    """``q`` becomes rint((after - before) / scale) of each tensor, at most 127 in size, ``squares`` the sums of its q².

    q: int8[P], squares: int64[T], after, before: P elements, each read as float64, scales: float64[T]. Where a scale is
    0 or NaN q is 0, and so it is where the quotient is NaN.
    """
    for t in range(squares.shape[0]):
        scale = scales[t]
        into = q[starts[t] : starts[t + 1]]
        square = np.int64(0)
        if not scale > 0.0:
            for i in range(into.shape[0]):
                into[i] = np.int8(0)
            squares[t] = square
            continue
        from_, to = before[starts[t] : starts[t + 1]], after[starts[t] : starts[t + 1]]
        for start in range(0, into.shape[0], INT32_BLOCK):
            x = to[start : start + INT32_BLOCK]
            y = from_[start : start + INT32_BLOCK]
            part = into[start : start + INT32_BLOCK]
            block = np.int32(0)
            for i in range(part.shape[0]):
                level = np.rint((np.float64(x[i]) - np.float64(y[i])) / scale)
                level = 0.0 if level != level else level  # noqa: PLR0124 (NaN is what differs from itself)
                level = min(max(level, -127.0), 127.0)
                whole = np.int32(level)
                part[i] = np.int8(whole)
                block = np.int32(block + np.int32(whole * whole))
            square += np.int64(block)
        squares[t] = square
