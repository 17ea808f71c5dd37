"""What lateness leaves of windows, against naive twins in Python's integers and fractions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation import codecs
from aggregation.defences import Histograms
from aggregation.errors import IntegrityProblem
from aggregation.layout import BUFFERS, VALUE_DIGITS, Layout, TensorSpec
from aggregation.policy import Policy
from aggregation.server import kernels
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import ON_TIME, Lateness, MergedWindows, lateness_under
from aggregation.server.merge import Checkpoint, choose, merge
from aggregation.server.totals import WindowSums, add_sums, add_windows
from aggregation.weights.fixed_point import WEIGHT_ONE
from tests import naive
from tests.factories import aggregate, policy

ENDS = [-(1 << 63), (1 << 63) - 1, -(1 << 62), (1 << 62) - 1, 0, 1, -1, 32767, 32768, -32768, -32769, 65535]
WEIGHTS = [0, 1, 2, 3, 32767, 32768, 32769, 65535, WEIGHT_ONE]
LAYOUT = Layout.of([TensorSpec("weight", (5,)), TensorSpec("mean", (2,), BUFFERS)])
PARAMETERS = LAYOUT.trainable.parameters


def rules(**sections: Any) -> Policy:
    return policy(format="fluvial/policy/v3", **sections)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Hypothesis holds every example to a deadline, the first one would pay for the compiler."""
    kernels.add_late_into(np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64), 3)
    merged([window_of([1] * 5, [(1.0, 2.0, 7)])], [9])


# -- sums


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_late_window_equals_its_twin_at_int64s_very_ends(weight: int) -> None:
    rng = np.random.default_rng(weight)
    one = np.concatenate([np.array(ENDS, dtype=np.int64), rng.integers(-(1 << 63), (1 << 63) - 1, 200)])
    total = np.zeros(one.size, dtype=np.int64)
    reach = kernels.add_late_into(total, one, weight)
    assert total.tolist() == naive.late_window(one, weight)
    assert reach == (min(0, *total.tolist()), max(0, *total.tolist()))


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=9), st.integers(0, WEIGHT_ONE))
def test_a_late_window_equals_its_twin(numbers: list[int], weight: int) -> None:
    one = np.array(numbers, dtype=np.int64)
    total = np.zeros(one.size, dtype=np.int64)
    kernels.add_late_into(total, one, weight)
    assert total.tolist() == naive.late_window(one, weight)


def test_a_whole_window_is_left_as_it_is() -> None:
    one = np.array(ENDS, dtype=np.int64)
    total = np.zeros(one.size, dtype=np.int64)
    kernels.add_late_into(total, one, WEIGHT_ONE)
    assert total.tolist() == one.tolist()


Contribution = tuple[float, float, int]
"""Two values of a buffer, and the update's weight."""
value = st.floats(width=32, allow_nan=False, allow_infinity=False)
contribution = st.tuples(value, value, st.integers(1, WEIGHT_ONE))
window = st.tuples(
    st.lists(st.integers(-(1 << 58), 1 << 58), min_size=PARAMETERS, max_size=PARAMETERS),
    st.lists(contribution, min_size=1, max_size=3),
)


def window_of(weights: list[int], updates: list[Contribution]) -> tuple[npt.NDArray[np.int64], int]:
    """A window's sums and what its updates weigh."""
    digits = np.zeros(2 * VALUE_DIGITS, dtype=np.int64)
    for one, two, weight in updates:
        codecs.accumulate_values_into(digits, np.array([one, two], dtype=np.float32), weight)
    sums = np.concatenate([np.array(weights, dtype=np.int64), digits])
    return sums, sum(weight for _, _, weight in updates)


def merged(windows: list[tuple[npt.NDArray[np.int64], int]], left: list[int]) -> npt.NDArray[np.float32]:
    """The model that comes of windows of which so much is left."""
    taken = (WindowSums(sums, of, weight) for (sums, of), weight in zip(windows, left, strict=True))
    total = add_windows(taken, weights=PARAMETERS, elements=LAYOUT.sum_elements)
    weight_total = sum(naive.late_weight(of, weight) for (_, of), weight in zip(windows, left, strict=True))
    parent = Checkpoint(np.zeros(LAYOUT.parameters, dtype=np.float32), {})
    plain = policy(server={"divide_by": "weights"})
    step = merge(
        parent, total, updates=7, weight_total=weight_total, policy=plain, server=plain.server, layout=LAYOUT
    )
    return step.checkpoint.model


@given(st.lists(st.tuples(window, st.sampled_from([*WEIGHTS[1:], 777])), min_size=1, max_size=4))
def test_a_version_of_random_windows_equals_its_twin(drawn: list[tuple[Any, int]]) -> None:
    windows, left = [window_of(*one) for one, _ in drawn], [weight for _, weight in drawn]
    found = merged(windows, left).tolist()
    exponent = policy().fixed_point.exponent
    added = [naive.late_window(sums[:PARAMETERS], w) for (sums, _), w in zip(windows, left, strict=True)]
    total = [sum(column) for column in zip(*added, strict=True)]
    divisor = sum(naive.late_weight(of, w) for (_, of), w in zip(windows, left, strict=True)) / WEIGHT_ONE
    assert found[:PARAMETERS] == [float(np.float32(x / 2**exponent / divisor)) for x in total]
    for at in (0, 1):
        pairs = [
            (one[at], one[2] * weight) for (_, updates), weight in drawn_updates(drawn) for one in updates
        ]
        values, weights = zip(*pairs, strict=True)
        assert found[PARAMETERS + at] == naive.mean_of_values(values, weights)


def drawn_updates(drawn: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    return [((None, one[1]), weight) for one, weight in drawn]


@given(
    value, st.lists(st.tuples(st.integers(1, WEIGHT_ONE), st.integers(1, WEIGHT_ONE)), min_size=1, max_size=5)
)
def test_a_mean_of_equal_values_is_that_value_however_late_they_are(
    one: float, windows: list[tuple[int, int]]
) -> None:
    made = [window_of([0] * PARAMETERS, [(one, one, weight)]) for weight, _ in windows]
    assert merged(made, [left for _, left in windows])[PARAMETERS:].tolist() == [one + 0.0, one + 0.0]


def test_windows_that_are_not_late_give_the_bits_that_they_always_gave() -> None:
    made = [window_of([5, -7, 1 << 40, 0, 3], [(1.5, -2.5, 40_000)]) for _ in range(3)]
    flat = add_sums((sums for sums, _ in made), LAYOUT.sum_elements)
    parent = Checkpoint(np.zeros(LAYOUT.parameters, dtype=np.float32), {})
    plain = policy(server={"divide_by": "weights"})
    step = merge(
        parent, flat, updates=7, weight_total=120_000, policy=plain, server=plain.server, layout=LAYOUT
    )
    assert merged(made, [WEIGHT_ONE] * 3).tobytes() == step.checkpoint.model.tobytes()


@pytest.mark.parametrize("where", [0, PARAMETERS])
def test_late_sums_out_of_all_bounds_are_refused(where: int) -> None:
    sums = np.zeros(LAYOUT.sum_elements, dtype=np.int64)
    sums[where] = (1 << 63) - 1
    late = [WindowSums(sums, 1, 65535), WindowSums(sums, 1, 65535)]
    with pytest.raises(IntegrityProblem, match="the bound"):
        add_windows(late, weights=PARAMETERS, elements=LAYOUT.sum_elements)


# -- how late


def folded_under(version: int, *, accepted: int = 4, partition: int = 0, **changed: Any) -> Aggregate:
    return replace(aggregate("eu", partition, 0, accepted=accepted), version=version, **changed)


@pytest.mark.parametrize(
    ("version", "left"),
    [
        pytest.param(9, WEIGHT_ONE, id="under the version before it: on time"),
        pytest.param(8, 46341, id="one version late"),
        pytest.param(6, 32768, id="at the bound"),
        pytest.param(5, 0, id="beyond the bound"),
        pytest.param(0, 0, id="ages ago"),
        pytest.param(10, WEIGHT_ONE, id="under a version that is not there yet"),
    ],
)
def test_a_window_weighs_by_the_versions_since_it_was_folded(version: int, left: int) -> None:
    lateness = lateness_under(rules(staleness={"versions_max": 3}), 9)
    assert lateness.weight_of(folded_under(version)) == left


@pytest.mark.parametrize(
    "rule",
    [policy(), policy(format="fluvial/policy/v1"), rules(buffer={"late_windows": False})],
    ids=["v2", "v1", "turned off"],
)
def test_nothing_is_late_where_the_policy_does_not_say_so(rule: Policy) -> None:
    assert lateness_under(rule, 9) == ON_TIME
    assert ON_TIME.weight_of(folded_under(0)) == WEIGHT_ONE


LATE = Lateness(9, (WEIGHT_ONE, 40_000))
FRESH, OLD, DEAD = folded_under(9), folded_under(8, partition=1), folded_under(7, partition=2)


@pytest.mark.parametrize(
    ("waiting", "deadline", "chosen"),
    [
        pytest.param((DEAD, DEAD), True, 0, id="windows that are too late are no version"),
        pytest.param((DEAD, FRESH, FRESH), False, 3, id="they go along, and fill nothing"),
        pytest.param((FRESH, DEAD), False, 0, id="what counts does not fill the buffer"),
        pytest.param((FRESH, DEAD), True, 2, id="at the deadline they go along"),
        pytest.param((OLD, FRESH, FRESH), False, 2, id="late ones fill it as they are"),
    ],
)
def test_windows_that_are_too_late_fill_no_version(
    waiting: tuple[Aggregate, ...], chosen: int, *, deadline: bool
) -> None:
    rule = rules(buffer={"updates": 8})
    assert len(choose(waiting, rule, deadline_passed=deadline, lateness=LATE)) == chosen


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, n << 16))),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_totals_are_those_of_the_windows_that_count(drawn: list[tuple[int, tuple[int, int]]]) -> None:
    lateness = Lateness(9, (WEIGHT_ONE, 40_000, 3))
    windows = [folded_under(version, accepted=n, weight_total=of) for version, (n, of) in drawn]
    found = MergedWindows.of(windows, lateness)
    left = [lateness.weight_of(one) for one in windows]
    assert found.accepted == sum(one.accepted for one, w in zip(windows, left, strict=True) if w)
    assert found.dropped == sum(one.accepted for one, w in zip(windows, left, strict=True) if not w)
    expected = sum(naive.late_weight(one.weight_total, w) for one, w in zip(windows, left, strict=True))
    assert found.weight_total == expected == lateness_total(found)
    assert lateness.updates_of(windows) == found.accepted


def lateness_total(found: MergedWindows) -> int:
    return sum(naive.late_weight(one.weight_total, weight) for one, weight in found.pairs)


# -- what is usual


buckets = st.dictionaries(st.integers(1, 9), st.integers(1, 1 << 40), max_size=5)


@given(buckets, st.lists(st.tuples(st.sampled_from([9, 8, 2]), buckets), max_size=4))
def test_pools_are_of_windows_that_count(
    before: dict[int, int], drawn: list[tuple[int, dict[int, int]]]
) -> None:
    windows = [folded_under(v, histograms=Histograms(norms=said(pool))) for v, pool in drawn]
    found = MergedWindows.of(windows, LATE).pools(Histograms(norms=said(before)))
    assert dict(found.norms) == naive.pooled(before, [pool for version, pool in drawn if version >= 8])
    assert (found.cosines, found.shares) == ((), ())
    assert list(found.norms) == sorted(found.norms)


def said(pool: dict[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(pool.items()))
