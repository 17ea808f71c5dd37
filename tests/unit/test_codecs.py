"""Encoding on the device, and what the fold makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation import codecs
from aggregation.codecs import CodecName, Delta, Measured
from aggregation.layout import Layout
from tests.factories import LAYOUT, delta, encoded

ONE = Layout.of([("w", (4,))])


def view(values: list[codecs.EncodedTensor], codec: CodecName, layout: Layout = LAYOUT) -> Delta:
    return codecs.view_delta(codec, [t.data for t in values], tuple(t.scale for t in values), layout)


def decoded(one: Delta, layout: Layout) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    out = one.flat.astype(np.float64)
    for t, scale in enumerate(one.scales):
        out[layout.starts[t] : layout.starts[t + 1]] *= scale
    return out


def test_float32_travels_unchanged() -> None:
    values = delta(1)
    one = view(encoded(values, "float32"), "float32")
    assert one.flat.tobytes() == values.tobytes()
    assert one.scales == (1.0, 1.0, 1.0)


@given(st.integers(0, 10_000))
def test_int8_is_never_further_off_than_one_level(seed: int) -> None:
    values = delta(seed)
    one = view(encoded(values, seed=seed), "int8")
    scales = np.repeat(one.scales, np.diff(LAYOUT.starts))
    assert np.all(np.abs(decoded(one, LAYOUT) - values) <= scales * (1 + 1e-9))
    assert one.flat.min() >= -127  # -128 is never written


def test_stochastic_rounding_is_unbiased() -> None:
    values = np.array([0.3, -0.3, 1.0, 0.004], dtype=np.float32)
    rng = np.random.default_rng(7)
    trials = 4000
    total = np.zeros(4)
    for _ in range(trials):
        total += decoded(view(codecs.encode_delta(values, ONE, "int8", rng), "int8", ONE), ONE)
    level = 1.0 / 127
    assert np.all(np.abs(total / trials - values) < 5 * level / math.sqrt(trials))


def test_equal_seeds_give_equal_bytes() -> None:
    assert encoded(delta(3), seed=4) == encoded(delta(3), seed=4)
    assert encoded(delta(3), seed=4) != encoded(delta(3), seed=5)


def test_a_zero_tensor_is_encoded_with_scale_zero_and_has_no_norm() -> None:
    one = view(encoded(np.zeros(LAYOUT.parameters, dtype=np.float32)), "int8")
    assert one.scales == (0.0, 0.0, 0.0)
    assert codecs.measure(one, LAYOUT) == Measured(0.0, (False, False, False))


@pytest.mark.parametrize("codec", ["int8", "float32"])
@pytest.mark.parametrize("seed", range(5))
def test_the_norm_is_that_of_the_decoded_delta(codec: CodecName, seed: int) -> None:
    one = view(encoded(delta(seed), codec, seed), codec)
    assert codecs.measure(one, LAYOUT).norm == pytest.approx(float(np.linalg.norm(decoded(one, LAYOUT))))


@pytest.mark.parametrize("codec", ["int8", "float32"])
@pytest.mark.parametrize("seed", range(5))
def test_the_cosine_is_that_of_the_decoded_vectors(codec: CodecName, seed: int) -> None:
    reference = codecs.direction_of(delta(seed + 50).astype(np.float64), LAYOUT)
    one = view(encoded(delta(seed), codec, seed), codec)
    there = decoded(Delta("int8", reference.q, reference.scales), LAYOUT)
    here = decoded(one, LAYOUT)
    expected = float(here @ there / np.linalg.norm(here) / np.linalg.norm(there))
    assert codecs.cosine(one, codecs.measure(one, LAYOUT).norm, reference, LAYOUT) == pytest.approx(expected)


def test_the_cosine_with_nothing_is_zero() -> None:
    nothing = codecs.direction_of(np.zeros(LAYOUT.parameters), LAYOUT)
    one = view(encoded(delta(1)), "int8")
    assert codecs.cosine(one, codecs.measure(one, LAYOUT).norm, nothing, LAYOUT) == 0.0
    still = codecs.direction_of(delta(1).astype(np.float64), LAYOUT)
    assert codecs.cosine(one, 0.0, still, LAYOUT) == 0.0


def test_the_opposite_direction_has_cosine_minus_one_and_never_less() -> None:
    reference = codecs.direction_of(delta(1).astype(np.float64), LAYOUT)
    one = Delta("int8", (-reference.q).astype(np.int8), reference.scales)
    cosine = codecs.cosine(one, codecs.measure(one, LAYOUT).norm, reference, LAYOUT)
    assert -1.0 <= cosine <= -1.0 + 1e-12


@pytest.mark.parametrize(
    ("scale", "finite"),
    [(1.0, True), (0.0, True), (-1.0, False), (math.nan, False), (math.inf, False), (-math.inf, False)],
)
def test_a_scale_has_to_be_finite_and_not_negative(scale: float, *, finite: bool) -> None:
    assert codecs.is_finite(Delta("int8", np.zeros(4, dtype=np.int8), (scale,))) is finite


def test_a_huge_scale_over_zeros_is_still_zero() -> None:
    one = Delta("int8", np.zeros(4, dtype=np.int8), (1e308,))
    measured = codecs.measure(one, ONE)
    assert measured == Measured(0.0, (False,))
    sums = np.zeros(4, dtype=np.int64)
    codecs.accumulate_into(sums, one, measured, ONE, weight=1.0, clip=1.0, exponent=48)
    assert sums.tolist() == [0, 0, 0, 0]


def test_a_scale_whose_square_overflows_has_an_infinite_norm() -> None:
    one = Delta("int8", np.ones(4, dtype=np.int8), (1e200,))
    assert codecs.measure(one, ONE).norm == math.inf


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-160, 1e-20])
def test_a_scale_whose_square_underflows_adds_nothing_that_the_norm_missed(scale: float) -> None:
    one = Delta("int8", np.full(4, -128, dtype=np.int8), (scale,))
    sums = np.zeros(4, dtype=np.int64)
    codecs.accumulate_into(sums, one, codecs.measure(one, ONE), ONE, weight=1.0, clip=1.0, exponent=48)
    assert sums.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_accumulating_adds_the_weighted_clipped_delta_in_fixed_point(codec: CodecName) -> None:
    one = view(encoded(delta(2), codec, 2), codec)
    sums = np.full(LAYOUT.parameters, 1000, dtype=np.int64)
    codecs.accumulate_into(sums, one, codecs.measure(one, LAYOUT), LAYOUT, weight=0.5, clip=0.25, exponent=40)
    expected = decoded(one, LAYOUT) * 0.125 * 2.0**40
    assert np.all(np.abs(sums - 1000 - expected) <= 64)  # half a unit of the coefficient, 127 times


def test_a_reference_keeps_the_direction() -> None:
    step = delta(9).astype(np.float64)
    reference = codecs.direction_of(step, LAYOUT)
    there = decoded(Delta("int8", reference.q, reference.scales), LAYOUT)
    assert float(step @ there / np.linalg.norm(step) / np.linalg.norm(there)) > 0.999
    assert reference.norm == pytest.approx(float(np.linalg.norm(there)))


def test_a_reference_of_subnormal_numbers_stays_finite() -> None:
    reference = codecs.direction_of(np.full(4, 5e-324), ONE)
    assert np.all(np.isfinite(reference.scales))
    assert math.isfinite(reference.norm)
