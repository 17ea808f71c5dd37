"""What every merge keeps, whatever it is: each member of the table inherits all of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
from aggregation.merges import BUCKETS_MAX, MERGES, Bucket, merge_named
from aggregation.merges.shape import BUCKETS_MIN, tolerated
from aggregation.policy import MergePolicy
from aggregation.server.buckets import gram_of, one_of
from aggregation.server.totals import WindowSums, add_windows
from tests import naive

if TYPE_CHECKING:
    from collections.abc import Sequence

Int64Array = npt.NDArray[np.int64]

ROBUST = [name for name, merge in MERGES.items() if merge.robust]
ONE = 65536
SIZE = 700
"""Beyond one block of the kernels."""


def rules(kind: str, buckets: int, byzantine: int = 0, iterations: int = 8) -> MergePolicy:
    return MergePolicy(kind=kind, buckets=buckets, byzantine=byzantine, iterations=iterations)


def window(rows: Int64Array, weights: Sequence[int], late: int = ONE) -> WindowSums:
    buckets = tuple(Bucket(min(weight, 1), weight) for weight in weights)
    return WindowSums(rows.reshape(-1), sum(weights), late, buckets)


def merged(kind: str, rows: Int64Array, weights: Sequence[int], byzantine: int = 0) -> Int64Array:
    """What the production path makes of one window of these buckets."""
    size = rows.shape[1]
    total = add_windows([window(rows, weights)], weights=size, elements=size)
    return one_of(total, size, rules(kind, len(weights), byzantine))


def near(seed: int, buckets: int, *, size: int = SIZE, spread: float = 0.3) -> tuple[Int64Array, list[int]]:
    """Sums of buckets whose means are a common step and noise, and what their updates weigh."""
    rng = np.random.default_rng(seed)
    weights = [int(one) for one in rng.integers(1, 5, buckets) * ONE]
    means = rng.standard_normal(size) + spread * rng.standard_normal((buckets, size))
    scales = np.array(weights, dtype=np.float64)[:, None] / ONE
    return np.rint(means * scales * 2.0**32).astype(np.int64), weights


def mean_of(total: Int64Array, weights: Sequence[int]) -> npt.NDArray[np.float64]:
    return total.astype(np.float64) / (sum(weights) / ONE) / 2.0**32


@pytest.mark.parametrize("kind", MERGES)
def test_coefficients_are_parts_of_one(kind: str) -> None:
    for buckets in (3, 4, 8, BUCKETS_MAX):
        rows, weights = near(buckets, buckets, size=20)
        gram = gram_of(rows, range(buckets), weights)
        chosen = merge_named(kind).coefficients(rules(kind, buckets), gram, weights)
        assert len(chosen) == buckets
        assert all(each >= 0.0 for each in chosen)
        assert math.isclose(math.fsum(chosen), 1.0, rel_tol=1e-12)


@pytest.mark.parametrize("kind", MERGES)
def test_equal_buckets_give_the_mean_back(kind: str) -> None:
    common = np.rint(np.random.default_rng(3).standard_normal(SIZE) * 2.0**30).astype(np.int64)
    weights = [ONE, 2 * ONE, 3 * ONE, ONE, 5 * ONE]
    rows = np.array([common * (weight // ONE) for weight in weights])
    found = merged(kind, rows, weights)
    assert np.abs(found - rows.sum(axis=0)).max() <= 64  # of numbers of 2**33


@pytest.mark.parametrize("kind", MERGES)
def test_buckets_of_nothing_give_nothing(kind: str) -> None:
    assert not merged(kind, np.zeros((5, SIZE), dtype=np.int64), [ONE] * 5).any()


@pytest.mark.parametrize("kind", MERGES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_neither_the_order_of_windows_nor_how_updates_are_spread_over_them_matters(
    kind: str, seed: int, random: object
) -> None:
    rows, weights = near(seed, 6, size=40)
    parts = []
    left, rest = rows.copy(), list(weights)
    for n in range(3):
        taken = np.random.default_rng(seed + n).integers(-(2**33), 2**33, rows.shape)
        part = [max(1, weight // 4) for weight in rest]
        parts.append(window(taken, part))
        left, rest = left - taken, [weight - less for weight, less in zip(rest, part, strict=True)]
    parts.append(window(left, rest))
    random.shuffle(parts)  # type: ignore[attr-defined]
    total = add_windows(parts, weights=40, elements=40)
    assert total.bucket_weights == weights
    assert one_of(total, 40, rules(kind, 6)).tobytes() == merged(kind, rows, weights).tobytes()


@pytest.mark.parametrize("kind", MERGES)
@pytest.mark.parametrize("power", [-6, 1, 9])
def test_sums_of_twice_the_size_give_twice_the_merge(kind: str, power: int) -> None:
    """A power of two rounds nothing: what differs is the last rounding to an integer."""
    rows, weights = near(11, 7)
    rows = rows // 64 * 64
    found = merged(kind, rows, weights).astype(np.float64) * 2.0**power
    scaled = merged(kind, np.rint(rows * 2.0**power).astype(np.int64), weights)
    assert np.abs(found - scaled).max() <= 0.5 + 2.0**power


@pytest.mark.parametrize("kind", MERGES)
def test_the_order_of_buckets_hardly_matters(kind: str) -> None:
    """Sums go by place, so the last bits may differ, and no more."""
    rows, weights = near(5, 8)
    order = np.random.default_rng(1).permutation(8)
    turned = merged(kind, rows[order], [weights[place] for place in order])
    assert np.abs(turned - merged(kind, rows, weights)).max() <= 1e-9 * np.abs(rows).max()


def distance_from_honest(kind: str, size: float) -> float:
    """How far one bucket of eight that is so large moves the merge, in lengths of the honest step."""
    rows, weights = near(2, 8)
    weights = [ONE] * 8
    honest = rows[1:].astype(np.float64).mean(axis=0) / 2.0**32
    rows = rows.copy()
    rows[0] = np.rint(-size * honest * 2.0**32).astype(np.int64)
    return float(
        np.linalg.norm(mean_of(merged(kind, rows, weights), weights) - honest) / np.linalg.norm(honest)
    )


WITHSTANDS = {"mean": False, "geometric_median": True, "krum": True, "mixing": True}
"""Whether one huge bucket of eight is withstood."""


@pytest.mark.parametrize("kind", MERGES)
def test_one_huge_bucket_of_eight_is_withstood_or_the_member_says_that_it_is_not(kind: str) -> None:
    assert WITHSTANDS[kind] == merge_named(kind).robust
    far = distance_from_honest(kind, 1e6)
    assert (far < 1.0) == WITHSTANDS[kind]


@pytest.mark.parametrize("kind", ROBUST)
def test_fewer_than_three_buckets_that_hold_anything_are_added(kind: str) -> None:
    rows, weights = near(4, 5)
    for empty in ([0, 2, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4]):
        few, weighs = rows.copy(), list(weights)
        few[empty] = 0
        for place in empty:
            weighs[place] = 0
        assert merged(kind, few, weighs).tobytes() == few.sum(axis=0).tobytes()


@pytest.mark.parametrize("kind", ROBUST)
def test_empty_buckets_are_as_if_there_were_none(kind: str) -> None:
    rows, weights = near(6, 5)
    wide = np.zeros((8, SIZE), dtype=np.int64)
    places = [0, 2, 3, 6, 7]
    wide[places] = rows
    weighs = [0] * 8
    for place, weight in zip(places, weights, strict=True):
        weighs[place] = weight
    assert merged(kind, wide, weighs).tobytes() == merged(kind, rows, weights).tobytes()


@pytest.mark.parametrize("kind", ROBUST)
def test_windows_of_other_buckets_are_added(kind: str) -> None:
    rows, weights = near(7, 4)
    other, weighs = near(8, 6)
    single = WindowSums(rows.sum(axis=0), sum(weights))
    for windows in (
        [window(rows, weights), window(other, weighs)],
        [window(other, weighs), window(rows, weights)],
        [window(rows, weights), single],
        [single, window(rows, weights)],
    ):
        total = add_windows(windows, weights=SIZE, elements=SIZE)
        found = one_of(total, SIZE, rules(kind, 4))
        plain = sum(one.sums.reshape(-1, SIZE).sum(axis=0) for one in windows)
        assert found.tobytes() == np.asarray(plain).tobytes()
        assert total.bucket_weights == [sum(one.weight_total for one in windows)]


@pytest.mark.parametrize("buckets", [1, 2, 3, 4, 5, 8, 13, BUCKETS_MAX])
@pytest.mark.parametrize("size", [1, 3, 511, 512, 513, 1300])
def test_the_kernels_have_their_twins_bits(buckets: int, size: int) -> None:
    rng = np.random.default_rng(buckets * size)
    rows = rng.integers(-(2**62), 2**62, (buckets, size)) >> rng.integers(0, 60, (buckets, size))
    weights = [int(one) for one in rng.integers(1, 2**40, buckets)]
    present = [place for place in range(buckets) if place % 3 != 1]
    weighs = [weights[place] for place in present]
    assert gram_of(rows, present, weighs) == naive.gram_of(rows[present], weighs)


@pytest.mark.parametrize("kind", ROBUST)
@pytest.mark.parametrize("buckets", [3, 8, BUCKETS_MAX])
def test_the_combined_sums_have_their_twins_bits(kind: str, buckets: int) -> None:
    rows, weights = near(buckets, buckets, size=1300)
    rows[0, :3] = (2**62, -(2**62), 2**61)
    gram = naive.gram_of(rows, weights)
    chosen = merge_named(kind).coefficients(rules(kind, buckets), gram, weights)
    assert merged(kind, rows, weights).tobytes() == naive.combined(rows, weights, chosen).tobytes()


def test_how_many_are_tolerated() -> None:
    assert [tolerated(rules("krum", n), n) for n in (3, 4, 5, 8, 9)] == [0, 0, 1, 2, 3]
    assert [tolerated(rules("krum", 9, byzantine=2), n) for n in (9, 7, 6, 3)] == [2, 2, 1, 0]


def test_a_policy_has_three_buckets_or_more_of_a_merge_that_tells_them_apart() -> None:
    assert all(MERGES[name].buckets_min == BUCKETS_MIN for name in ROBUST)


def test_an_unknown_merge_is_named() -> None:
    with pytest.raises(UsageProblem, match="there is no merge 'bulyan'") as caught:
        merge_named("bulyan")
    assert caught.value.error_id == "FLV-2006"
