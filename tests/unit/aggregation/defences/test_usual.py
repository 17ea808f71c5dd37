"""What is usual: buckets, medians and pools, against their definitions."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.defences.usual import (
    LENGTH_PARTS,
    POOL_KEPT,
    POOL_UNIT,
    SHARE_UNIT,
    Counting,
    Histograms,
    cosine_bucket,
    median,
    norm_bucket,
    norm_of_bucket,
    pooled,
    share_count,
    square_count,
)
from aggregation.policy import BufferPolicy, WindowPolicy
from aggregation.policy.v6 import DocumentV6

NORMS = st.floats(min_value=5e-324, max_value=1e300)


@given(NORMS)
def test_a_norm_stands_in_a_bucket_that_is_at_most_an_eighth_wide(norm: float) -> None:
    middle = norm_of_bucket(norm_bucket(norm))
    if norm > 1e-300:
        assert abs(norm - middle) <= norm / 8
    assert norm_bucket(norm) >= 0


@given(NORMS, NORMS)
def test_buckets_of_norms_are_in_the_order_of_the_norms(one: float, other: float) -> None:
    assert (norm_bucket(one) <= norm_bucket(other)) or one > other


@given(st.floats(-1, 1))
def test_a_cosines_bucket_is_its_64th_part_rounded_down(cosine: float) -> None:
    assert cosine_bucket(cosine) == math.floor(64 * cosine)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_the_median_is_the_lower_one(values: list[int]) -> None:
    counts = tuple(sorted((value, values.count(value)) for value in set(values)))
    assert median(counts) == median_low(values)


def test_of_nothing_nothing_is_usual() -> None:
    assert median(()) == 0
    assert (Histograms().usual.norm, Histograms().usual.cosine, Histograms().usual.share) == (0.0, 0, 0)


def test_a_pool_forgets_a_quarter_a_version_and_weighs_the_new_whole() -> None:
    pool = pooled((), [((3, 2),), ((3, 1), (5, 1))])
    assert pool == ((3, 3 * POOL_UNIT), (5, POOL_UNIT))
    assert pooled(pool, []) == ((3, 9 * POOL_UNIT // 4), (5, 3 * POOL_UNIT // 4))
    for _ in range(30):
        pool = pooled(pool, [])
    assert pool == ()  # what nobody does any more is forgotten


def test_each_device_counts_alike_among_shares_however_often_it_contributes() -> None:
    often, seldom = Counting(), Counting()
    for _ in range(8):
        often.add(1.0, None, 8)
    seldom.add(1.0, None, 1)
    assert dict(often.shares) == {8: SHARE_UNIT}
    assert dict(seldom.shares) == {1: SHARE_UNIT}
    assert [share_count(own) for own in (1, 2, 3, 7, 8, 9, 200)] == [840, 420, 280, 120, 105, 105, 105]


@given(NORMS, NORMS)
def test_a_norm_counts_by_its_square_in_eighths_of_what_it_is_clipped_to(norm: float, clip_to: float) -> None:
    parts = math.isqrt(square_count(norm, clip_to))
    assert parts * parts == square_count(norm, clip_to)
    exact = min(Fraction(1), Fraction(norm) / Fraction(clip_to)) * LENGTH_PARTS
    assert 1 <= parts <= LENGTH_PARTS
    assert abs(parts - max(exact, Fraction(1))) <= Fraction(1, 2) + Fraction(1, 1 << 40)


def test_a_norm_that_is_clipped_to_nothing_counts_whole() -> None:
    assert [square_count(norm, 0.0) for norm in (5e-324, 1.0, 1e300)] == [64, 64, 64]


def test_the_largest_pool_that_a_policy_allows_is_a_number_that_json_can_say() -> None:
    updates = DocumentV6(buffer=BufferPolicy(updates=100_000_000), window=WindowPolicy(updates_max=1_000_000))
    most = updates.buffer.updates - 1 + updates.window.updates_max
    kept, of = POOL_KEPT
    assert most * SHARE_UNIT * LENGTH_PARTS**2 * POOL_UNIT * of // (of - kept) < 1 << 53


def test_a_crowd_that_sends_next_to_nothing_has_next_to_no_say_in_what_is_usual() -> None:
    """Each of 18 in every version at an eighth of a share, one hundredth as long: and two honest ones."""
    alike, by_squares = Counting(), Counting()
    for norm, own, times in [(0.01, 5, 18), (1.0, 1, 2)]:
        for _ in range(times):
            alike.add(norm, None, own)
            by_squares.add(norm, None, own, square_count(norm, 1.0))
    assert alike.closed().usual.norm == pytest.approx(0.01, rel=1 / 8)
    assert by_squares.closed().usual.norm == pytest.approx(1.0, rel=1 / 8)


def test_whoever_sends_what_is_far_too_long_counts_no_more_than_what_is_left_of_it() -> None:
    """A fifth of the devices, ten times as long as the others: what is usual stays theirs."""
    counting = Counting()
    for norm in [10.0] * 4 + [0.9, 1.0, 1.0, 1.1] * 4:
        counting.add(norm, None, 1, square_count(norm, 1.25))
    assert counting.closed().usual.norm == pytest.approx(1.0, rel=1 / 8)


def test_a_window_counts_what_it_was_shown() -> None:
    counting = Counting()
    counting.add(2.0, 0.5, 1)
    counting.add(2.1, -0.25, 2)
    counting.add(0.0, None, 1)
    found = counting.closed()
    assert found.norms == ((norm_bucket(2.0), SHARE_UNIT + SHARE_UNIT // 2),)
    assert found.cosines == ((-16, SHARE_UNIT // 2), (32, SHARE_UNIT))
    assert found.shares == ((1, 2 * SHARE_UNIT), (2, SHARE_UNIT // 2))
    assert found.usual.cosine == 32
    assert found.usual.norm == pytest.approx(2.0, rel=1 / 8)


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(-1, 1), st.integers(1, 9)), max_size=30))
def test_the_order_of_updates_makes_no_difference(rows: list[tuple[float, float, int]]) -> None:
    one, other = Counting(), Counting()
    for row in rows:
        one.add(*row)
    for row in random.Random(1).sample(rows, len(rows)):
        other.add(*row)
    assert one.closed() == other.closed()
