"""Every kernel equals its naive twin, bit for bit, over many shapes and at the extremes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.codecs import kernels
from aggregation.layout import VALUE_DIGITS
from tests import naive

SHAPES: list[tuple[int, ...]] = [
    (1,),
    (1, 1, 1),
    (2, 3),
    (7,),
    (127, 1),
    (31, 37),
    (64, 64, 5),
    (257, 3, 1, 2),
]
SEEDS = range(3)


def starts_of(sizes: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def int8s(sizes: tuple[int, ...], seed: int) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, sum(sizes)).astype(np.int8)


def float32s(sizes: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=sum(sizes)) * 10.0 ** rng.integers(-44, 38, sum(sizes))
    return values.astype(np.float32)


EXTREME_INT8 = [
    np.full(9, -128),
    np.full(9, 127),
    np.zeros(9),
    np.array([-128, 127, -1, 0, 1, 127, -128, 0, 1]),
]
EXTREME_FLOAT32 = [
    np.full(9, 1e-45),  # the smallest subnormal
    np.full(9, 1.1e-38),
    np.full(9, 3.4e38),
    np.zeros(9),
    np.array([3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0, 1.0, -1.0, 0.1]),
]
NINE = np.array([0, 1, 9], dtype=np.int64)


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_integer_kernels_equal_their_twins(sizes: tuple[int, ...], seed: int) -> None:
    starts, q, reference = starts_of(sizes), int8s(sizes, seed), int8s(sizes, seed + 100)
    check_integer_kernels(q, reference, starts, seed)


@pytest.mark.parametrize("q", EXTREME_INT8)
@pytest.mark.parametrize("reference", EXTREME_INT8)
def test_integer_kernels_equal_their_twins_at_the_extremes(
    q: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]
) -> None:
    check_integer_kernels(q.astype(np.int8), reference.astype(np.int8), NINE, 1)


def check_integer_kernels(
    q: npt.NDArray[np.int8], reference: npt.NDArray[np.int8], starts: npt.NDArray[np.int64], seed: int
) -> None:
    tensors = len(starts) - 1
    squares, dots = np.full(tensors, -5, dtype=np.int64), np.full(tensors, -5, dtype=np.int64)
    kernels.squares_int8(q, starts, squares)
    kernels.dots_int8(q, reference, starts, dots)
    assert squares.tolist() == naive.squares_int8(q, starts)
    assert dots.tolist() == naive.dots_int8(q, reference, starts)
    both = np.full((2, tensors), -5, dtype=np.int64)
    kernels.squares_and_dots_int8(q, reference, starts, *both)
    assert both.tolist() == [squares.tolist(), dots.tolist()]
    rng = np.random.default_rng(seed)
    sums = rng.integers(-(1 << 60), 1 << 60, q.size)
    coefficients = rng.integers(0, 1 << 55, tensors)
    expected = naive.accumulate_int8(sums, q, starts, coefficients)
    kernels.accumulate_int8_into(sums, q, starts, coefficients)
    assert sums.tolist() == expected


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_float_kernels_equal_their_twins(sizes: tuple[int, ...], seed: int) -> None:
    check_float_kernels(float32s(sizes, seed), int8s(sizes, seed), starts_of(sizes))


@pytest.mark.parametrize("x", EXTREME_FLOAT32)
def test_float_kernels_equal_their_twins_at_the_extremes(x: npt.NDArray[np.float64]) -> None:
    check_float_kernels(x.astype(np.float32), np.full(9, -128, dtype=np.int8), NINE)


def check_float_kernels(
    x: npt.NDArray[np.float32], reference: npt.NDArray[np.int8], starts: npt.NDArray[np.int64]
) -> None:
    squares, dots = np.full(len(starts) - 1, np.nan), np.full(len(starts) - 1, np.nan)
    kernels.squares_float32(x, starts, squares)
    kernels.dots_float32(x, reference, starts, dots)
    assert squares.tolist() == naive.squares_float32(x, starts)
    assert dots.tolist() == naive.dots_float32(x, reference, starts)
    both = np.full((2, len(starts) - 1), np.nan)
    kernels.squares_and_dots_float32(x, reference, starts, *both)
    assert both.tolist() == [squares.tolist(), dots.tolist()]
    factor = float(1 << 40) / max(1.0, float(np.abs(x).max()))
    sums = np.arange(x.size, dtype=np.int64)
    expected = naive.accumulate_float32(sums, x, factor)
    kernels.accumulate_float32_into(sums, x, factor)
    assert sums.tolist() == expected


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 17) + 3])
@pytest.mark.parametrize("value", [-128, 127])
def test_long_runs_of_extremes_do_not_overflow_an_inner_block(size: int, value: int) -> None:
    q = np.full(size, value, dtype=np.int8)
    squares, dots = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    starts = np.array([0, size], dtype=np.int64)
    kernels.squares_int8(q, starts, squares)
    kernels.dots_int8(q, np.full(size, -128, dtype=np.int8), starts, dots)
    expected = (size * value**2, size * value * -128)
    assert (int(squares[0]), int(dots[0])) == expected
    kernels.squares_and_dots_int8(q, np.full(size, -128, dtype=np.int8), starts, squares, dots)
    assert (int(squares[0]), int(dots[0])) == expected


def test_halves_round_to_even() -> None:
    sums = np.zeros(6, dtype=np.int64)
    kernels.accumulate_float32_into(sums, np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], dtype=np.float32), 1.0)
    assert sums.tolist() == [0, 2, 2, 0, -2, -2]


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_one_bad_element_anywhere_is_found(bad: float, at: int) -> None:
    x = np.array([3.4e38, -3.4e38, 1e-45, 0.0, -0.0, 1.0, -1.0], dtype=np.float32)
    assert kernels.all_finite_float32(x)
    x[at] = bad
    assert not kernels.all_finite_float32(x)
    assert not naive.all_finite_float32(x)


def test_signalling_nans_are_found_by_their_bits() -> None:
    assert not kernels.all_finite_float32(np.array([0x7F800001, 0], dtype=np.uint32).view(np.float32))


def test_kernels_take_read_only_arrays() -> None:
    q = np.frombuffer(b"\x01\x80\x7f", dtype=np.int8)
    squares = np.zeros(1, dtype=np.int64)
    kernels.squares_int8(q, np.array([0, 3], dtype=np.int64), squares)
    assert squares.tolist() == [1 + 128**2 + 127**2]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weight", [1, 3, 40_000, 65_536])
def test_the_kernel_of_values_equals_its_twin(seed: int, weight: int) -> None:
    for x in (float32s((41,), seed), *(one.astype(np.float32) for one in EXTREME_FLOAT32)):
        sums = np.random.default_rng(seed).integers(-(1 << 60), 1 << 60, VALUE_DIGITS * x.size)
        expected = naive.accumulate_values(sums, x, VALUE_DIGITS, weight)
        kernels.accumulate_values_into(sums, x.view(np.uint32), VALUE_DIGITS, weight)
        assert sums.tolist() == expected


# Directions


def check_direction(
    after: npt.NDArray[np.float32], before: npt.NDArray[np.float32], starts: npt.NDArray[np.int64], piece: int
) -> None:
    tensors = len(starts) - 1
    bits, t = np.zeros(tensors, dtype=np.int64), 0
    for begin in range(0, after.size, piece):
        t = kernels.widen_peaks(
            bits, after[begin : begin + piece], before[begin : begin + piece], starts, begin, t
        )
    assert t == tensors
    scales = bits.view(np.float64) / 127
    q, squares = np.full(after.size, 99, dtype=np.int8), np.full(tensors, -5, dtype=np.int64)
    kernels.direction_into(q, squares, after, before, starts, scales)
    expected_q, expected_scales, expected_squares = naive.direction(after.tolist(), before.tolist(), starts)
    assert scales.tobytes() == np.array(expected_scales).tobytes()
    assert q.tolist() == expected_q
    assert squares.tolist() == expected_squares


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("piece", [1, 5, 64, 1 << 20])
def test_directions_equal_their_twin_whatever_the_pieces(sizes: tuple[int, ...], piece: int) -> None:
    for seed in SEEDS:
        check_direction(float32s(sizes, seed), float32s(sizes, seed + 50), starts_of(sizes), piece)


STRANGE = np.array([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan])


@pytest.mark.filterwarnings("ignore:invalid value")  # without the compiler numpy's scalars say so
@pytest.mark.parametrize("after", STRANGE)
def test_directions_equal_their_twin_at_the_extremes_and_beyond(after: float) -> None:
    for before in STRANGE:
        x = np.array([after, 0.5, -0.25, after], dtype=np.float32)
        y = np.array([before, 0.0, 0.0, 0.0], dtype=np.float32)
        check_direction(x, y, np.array([0, 1, 4], dtype=np.int64), 3)


def test_a_long_direction_does_not_overflow_an_inner_block() -> None:
    size = kernels.INT32_BLOCK + 3
    after, before = np.full(size, -2.0, dtype=np.float32), np.zeros(size, dtype=np.float32)
    check_direction(after, before, np.array([0, size], dtype=np.int64), size)
