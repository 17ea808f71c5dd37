"""The cone: what it holds, what it leaves alone, and the checker's second way to it, bit for bit."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import Direction, direction_of
from aggregation.policy import Policy
from aggregation.server.cone import SUM_MAX, turned
from fluvial.proof.checker import arithmetic
from fluvial.proof.checker.cone import turned as turned_plainly
from tests.factories import LAYOUT, policy

SIZE = LAYOUT.parameters


def guided(least: float = 0.9, **defence: Any) -> Policy:
    return policy(format="fluvial/policy/v3", defence={"kind": "guide", "step_cosine_min": least} | defence)


def guide(seed: int, scale: float = 1.0) -> Direction:
    return direction_of(scale * np.random.default_rng(seed).standard_normal(SIZE), LAYOUT)


def flat(direction: Direction) -> np.ndarray[Any, Any]:
    edges = LAYOUT.starts.tolist()
    parts = [direction.q[edges[t] : edges[t + 1]] * scale for t, scale in enumerate(direction.scales)]
    return np.concatenate(parts)


def cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(one @ other / math.sqrt((one @ one) * (other @ other)))


def sums(seed: int, exponent: int = 40) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.rint(np.random.default_rng(seed).standard_normal(SIZE) * 2.0**exponent).astype(np.int64)


@settings(deadline=None)
@given(
    st.integers(0, 10_000), st.integers(0, 62), st.floats(0.01, 1.0), st.floats(-2, 2), st.floats(1e-9, 1e9)
)
def test_the_checker_turns_to_the_same_bits(
    seed: int, exponent: int, least: float, lean: float, scale: float
) -> None:
    to, rules = guide(seed, scale), guided(least)
    length = math.sqrt(float(flat(to) @ flat(to)))
    mixed = sums(seed + 1, min(exponent, 58)) + lean * flat(to) / length * 2.0**exponent
    given_sums = np.rint(np.clip(mixed, -SUM_MAX, SUM_MAX)).astype(np.int64)
    found = turned(given_sums, to, rules, LAYOUT)
    edges = LAYOUT.starts.tolist()
    layout = [
        arithmetic.Tensor(spec.name, spec.shape, edges[t], edges[t + 1], is_buffer=False, nonnegative=False)
        for t, spec in enumerate(LAYOUT.tensors)
    ]
    plain = arithmetic.Direction([to.q[one.begin : one.end] for one in layout], list(to.scales), to.norm)
    assert np.array_equal(found, turned_plainly(given_sums, plain, json.loads(rules.document), layout))


@pytest.mark.parametrize("least", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_a_step_that_stands_too_far_out_is_turned_to_the_edge_and_keeps_its_part_along_the_guide(
    seed: int, least: float
) -> None:
    to = guide(seed)
    away = sums(seed + 50).astype(np.float64)
    toward = flat(to) / math.sqrt(float(flat(to) @ flat(to)))
    away -= (away @ toward) * toward
    leaning = np.rint(away + 0.2 * math.sqrt(away @ away) * toward).astype(np.int64)
    found = turned(leaning, to, guided(least), LAYOUT).astype(np.float64)
    assert cosine(found, toward) == pytest.approx(least, abs=1e-6)
    assert found @ toward == pytest.approx(leaning @ toward, rel=1e-6)
    assert found @ found < leaning.astype(np.float64) @ leaning.astype(np.float64)


def test_what_is_within_the_cone_is_left_alone_to_the_last_bit() -> None:
    to = guide(1)
    near = np.rint(flat(to) * 2.0**45).astype(np.int64) + 7
    assert turned(near, to, guided(), LAYOUT) is near


def test_a_step_against_the_guide_is_no_step() -> None:
    to = guide(1)
    assert not turned(np.rint(-flat(to) * 2.0**40).astype(np.int64), to, guided(), LAYOUT).any()
    assert not turned(np.zeros(SIZE, dtype=np.int64), to, guided(), LAYOUT).any()


@pytest.mark.parametrize(
    ("rules", "with_guide"),
    [(guided(0.0), True), (guided(), False), (policy(format="fluvial/policy/v3"), True), (policy(), True)],
)
def test_without_a_guide_or_a_bound_nothing_is_turned(rules: Policy, with_guide: bool) -> None:  # noqa: FBT001
    given_sums = sums(3)
    assert turned(given_sums, guide(1) if with_guide else None, rules, LAYOUT) is given_sums


def test_sums_at_the_edge_of_all_numbers_stay_numbers() -> None:
    to = guide(2)
    wild = np.where(flat(to) > 0, 2**63 - 1, -(2**63) + 1).astype(np.int64)
    wild[::2] = -wild[::2]
    found = turned(wild, to, guided(1.0), LAYOUT)
    assert np.abs(found.astype(np.float64)).max() <= SUM_MAX
