"""Buffers: exact values, sums without rounding in any order, a mean between the least and the greatest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation import codecs
from aggregation.errors import IntegrityProblem
from aggregation.layout import BUFFERS, VALUE_DIGITS, Layout, TensorSpec
from aggregation.reasons import Because
from tests import naive

LAYOUT = Layout.of(
    [
        TensorSpec("w", (2, 3)),
        TensorSpec("mean", (3,), BUFFERS),
        TensorSpec("variance", (2,), BUFFERS, nonnegative=True),
    ]
)
FLOAT32_MAX = float(np.finfo(np.float32).max)
LEAST = 2.0**-149

floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
weighted = st.lists(st.tuples(floats, st.integers(1, 1 << 16)), min_size=1, max_size=9)


def float32(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def summed(pairs: list[tuple[float, int]]) -> npt.NDArray[np.int64]:
    sums = np.zeros(VALUE_DIGITS, dtype=np.int64)
    for value, weight in pairs:
        codecs.accumulate_values_into(sums, float32(value), weight)
    return sums


def str_of(problem: Because | None) -> str:
    return "" if problem is None else problem.text


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    summed(
        [(1.0, 1)]
    )  # hypothesis holds every example to a deadline, the first one would pay for the compiler


def mean(pairs: list[tuple[float, int]]) -> float:
    return float(codecs.mean_of_values(summed(pairs), sum(weight for _, weight in pairs))[0])


@given(weighted)
def test_a_mean_is_the_nearest_float32_to_the_exact_one(pairs: list[tuple[float, int]]) -> None:
    values, weights = zip(*pairs, strict=True)
    assert mean(pairs) == naive.mean_of_values(values, weights)


@given(weighted)
def test_a_mean_lies_between_the_least_and_the_greatest(pairs: list[tuple[float, int]]) -> None:
    values = [value for value, _ in pairs]
    assert min(values) <= mean(pairs) <= max(values)


@given(weighted, st.randoms(use_true_random=False), st.integers(0, 9))
def test_sums_are_the_same_in_any_order_and_grouping(
    pairs: list[tuple[float, int]], random: object, cut: int
) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = summed(pairs)
    assert whole.tolist() == summed(shuffled).tolist()
    assert whole.tolist() == (summed(pairs[:cut]) + summed(pairs[cut:])).tolist()


@given(floats, st.integers(1, 1 << 16), st.integers(1, 5))
def test_what_all_devices_agree_on_stays_as_it_is(value: float, weight: int, devices: int) -> None:
    assert mean([(value, weight)] * devices) == value


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(FLOAT32_MAX, 1 << 16)] * 3, FLOAT32_MAX),
        ([(FLOAT32_MAX, 1), (-FLOAT32_MAX, 1)], 0.0),
        ([(LEAST, 1), (0.0, 1)], 0.0),  # half of the least number there is: to even
        ([(3 * LEAST, 1), (0.0, 1)], 2 * LEAST),  # one and a half of it: to even
        ([(LEAST, 2), (0.0, 1)], LEAST),
        ([(FLOAT32_MAX, 1), (LEAST, 65_536)], float(np.float32(FLOAT32_MAX / 65_537))),
        ([(-0.0, 5)], 0.0),
    ],
)
def test_means_at_the_edges(pairs: list[tuple[float, int]], expected: float) -> None:
    assert mean(pairs) == expected


@pytest.mark.parametrize(("hair", "expected"), [(2.0**-100, 1.0 + 2.0**-23), (0.0, 1.0), (-(2.0**-100), 1.0)])
def test_a_hair_beside_the_middle_of_two_float32_decides(hair: float, expected: float) -> None:
    """Through float64 the hair would be lost, and every one of these would go to the even one below."""
    assert mean([(4.0, 7), (2.0**-22, 7), (hair, 7), (0.0, 7)]) == expected


def test_an_update_travels_and_comes_back_exactly() -> None:
    base, local = float32(*range(11)), float32(*(0.1 * x - 1e30 for x in range(11)))
    update = codecs.update_of(local, base, LAYOUT)
    assert update[:6].tolist() == (local - base)[:6].tolist()
    assert update[6:].tolist() == local[6:].tolist()
    for name in codecs.CODECS:
        tensors = codecs.encode_update(update, LAYOUT, name, np.random.default_rng(1))
        assert [(one.name, one.shape) for one in tensors] == [(s.name, s.shape) for s in LAYOUT.tensors]
        data, scales = [one.data for one in tensors[1:]], [one.scale for one in tensors[1:]]
        assert codecs.wrong_values(data, scales, LAYOUT.buffers) is None
        values = codecs.view_values(data)
        assert values.tobytes() == local[6:].tobytes() and codecs.are_finite(values, scales)


def test_a_layout_without_buffers_takes_nothing_of_them() -> None:
    plain, update = LAYOUT.trainable, float32(*range(6))
    tensors = codecs.encode_update(update, plain, "float32", np.random.default_rng(1))
    assert tensors == codecs.encode_delta(update, plain, "float32", np.random.default_rng(1))
    assert codecs.update_of(update, update, plain).tolist() == [0.0] * 6
    assert codecs.wrong_values([], [], plain.buffers) is None
    assert codecs.mean_of_values(np.zeros(0, dtype=np.int64), 1).size == 0


def test_the_form_of_values_is_checked_to_the_byte() -> None:
    good = [bytes(12), bytes(8)]
    for data, problem in (
        ([bytes(11), bytes(8)], "buffer mean has 11 bytes, expected 12"),
        ([bytes(12), bytes(12)], "buffer variance has 12 bytes, expected 8"),
    ):
        assert str_of(codecs.wrong_values(data, (1.0, 1.0), LAYOUT.buffers)) == problem
    assert (
        str_of(codecs.wrong_values(good, (1.0, 2.0), LAYOUT.buffers))
        == "buffer variance has a scale other than 1"
    )
    for scale in (float("nan"), float("inf"), -1.0):
        assert codecs.wrong_values(good, (1.0, scale), LAYOUT.buffers) is None
        assert not codecs.are_finite(codecs.view_values(good), (1.0, scale))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_found(value: float) -> None:
    assert not codecs.are_finite(float32(1.0, value), (1.0,))


def test_only_what_is_to_be_nonnegative_may_not_be_below_0() -> None:
    assert codecs.below_zero(float32(-1, -1, -1, 0, 0), LAYOUT.buffers) == ""
    assert codecs.below_zero(float32(0, 0, 0, -0.0, 1), LAYOUT.buffers) == ""
    assert codecs.below_zero(float32(0, 0, 0, 1, -LEAST), LAYOUT.buffers) == "variance"


def test_sums_that_no_finite_values_have_are_refused() -> None:
    with pytest.raises(IntegrityProblem) as caught:
        codecs.mean_of_values(np.full(VALUE_DIGITS, 1 << 61), 1)
    assert caught.value.error_id == "FLV-3004"
