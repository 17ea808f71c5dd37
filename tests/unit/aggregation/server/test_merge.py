"""The merge: pending aggregates, what makes a version, exact sums in any grouping, FedBuff as published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.errors import IntegrityProblem
from aggregation.server.aggregates import Aggregate, PendingAggregates, Slot
from aggregation.server.merge import Checkpoint, choose, merge
from aggregation.server.totals import add_sums
from tests import naive
from tests.factories import (
    LAYOUT,
    Site,
    aggregate,
    barrier,
    delta,
    devices,
    encoded,
    policy,
    state_of,
    update,
)

if TYPE_CHECKING:
    import random

    from aggregation.policy import Policy

EU0, EU1, US0 = ("eu", 0), ("eu", 1), ("us", 0)
CURSORS: dict[Slot, int] = {EU0: 0, EU1: 0, US0: 0}


def named(aggregates: tuple[Aggregate, ...] | list[Aggregate]) -> list[str]:
    return [f"{a.region}{a.partition}/{a.sequence}" for a in aggregates]


def waiting(pending: PendingAggregates) -> list[str]:
    return named(list(pending.waiting()))


# Pending aggregates


def test_aggregates_wait_in_order_of_arrival() -> None:
    pending = PendingAggregates(CURSORS)
    for one in (aggregate(*EU1, 0), aggregate(*EU0, 0), aggregate(*EU1, 1)):
        assert pending.offer(one)
    assert waiting(pending) == ["eu1/0", "eu0/0", "eu1/1"]
    assert pending.updates == 12


def test_a_duplicate_is_dropped() -> None:
    pending = PendingAggregates(CURSORS)
    assert pending.offer(aggregate(*EU0, 0))
    assert not pending.offer(aggregate(*EU0, 0))
    assert waiting(pending) == ["eu0/0"]


def test_one_that_is_merged_already_is_dropped() -> None:
    pending = PendingAggregates({**CURSORS, EU0: 5})
    assert not pending.offer(aggregate(*EU0, 4))
    assert pending.offer(aggregate(*EU0, 5))


def test_one_that_comes_early_waits_for_those_before_it() -> None:
    pending = PendingAggregates(CURSORS)
    for sequence in (2, 1):
        assert pending.offer(aggregate(*EU0, sequence))
    assert waiting(pending) == []
    assert pending.offer(aggregate(*EU0, 0))
    assert waiting(pending) == ["eu0/0", "eu0/1", "eu0/2"]


def test_the_same_sequence_with_another_content_is_a_loud_divergence() -> None:
    pending = PendingAggregates(CURSORS)
    pending.offer(aggregate(*EU0, 0))
    with pytest.raises(IntegrityProblem, match="divergence: aggregate 0 of eu") as caught:
        pending.offer(aggregate(*EU0, 0, salt="other"))
    assert caught.value.error_id == "FLV-3002"
    assert waiting(pending) == ["eu0/0"]


def test_a_broken_chain_is_refused_and_the_right_one_may_still_come() -> None:
    pending = PendingAggregates(CURSORS)
    pending.offer(aggregate(*EU0, 0))
    with pytest.raises(IntegrityProblem) as caught:
        pending.offer(aggregate(*EU0, 1, previous="f" * 64, salt="other"))
    assert caught.value.error_id == "FLV-3003"
    assert waiting(pending) == ["eu0/0"]
    assert pending.offer(aggregate(*EU0, 1))
    assert waiting(pending) == ["eu0/0", "eu0/1"]


def test_the_first_of_a_partition_follows_nothing() -> None:
    with pytest.raises(IntegrityProblem, match="expected none"):
        PendingAggregates(CURSORS).offer(aggregate(*EU0, 0, previous="f" * 64))


def test_a_partition_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(IntegrityProblem) as caught:
        PendingAggregates(CURSORS).offer(aggregate("mars", 0, 0))
    assert caught.value.error_id == "FLV-3003"


def test_advance_forgets_what_a_version_holds_and_keeps_the_chain() -> None:
    pending = PendingAggregates(CURSORS)
    for one in (aggregate(*EU0, 0), aggregate(*EU1, 0), aggregate(*EU0, 1)):
        pending.offer(one)
    pending.advance({EU0: 1, EU1: 1, US0: 0})
    assert waiting(pending) == ["eu0/1"]
    assert not pending.offer(aggregate(*EU1, 0))
    with pytest.raises(IntegrityProblem):
        pending.offer(aggregate(*EU1, 1, previous="f" * 64))


def test_when_another_merger_was_faster_advance_jumps_and_takes_what_came_early() -> None:
    pending = PendingAggregates(CURSORS)
    pending.offer(aggregate(*EU0, 0))
    pending.offer(aggregate(*EU0, 3))
    pending.advance({EU0: 3, EU1: 2, US0: 0})
    assert waiting(pending) == ["eu0/3"]
    assert not pending.offer(aggregate(*EU1, 1))


@given(st.randoms(use_true_random=False))
def test_any_arrival_with_duplicates_gives_every_partition_in_sequence(rng: random.Random) -> None:
    pending = PendingAggregates(CURSORS)
    arrivals = [aggregate(*slot, n) for slot in CURSORS for n in range(6)] * 2
    rng.shuffle(arrivals)
    taken: list[Aggregate] = []
    cursors = dict(CURSORS)
    for one in arrivals:
        pending.offer(one)
        if rng.random() < 0.2:
            taken += pending.waiting()
            for merged in pending.waiting():
                cursors[merged.slot] += 1
            pending.advance(cursors)
    taken += pending.waiting()
    for slot in CURSORS:
        assert [a.sequence for a in taken if a.slot == slot] == list(range(6))


# What makes a version


def rules(k: int, window: int = 8) -> Policy:
    return policy(buffer={"updates": k}, window={"updates_max": window})


def queue(*accepted: int) -> list[Aggregate]:
    return [aggregate("eu", 0, n, accepted=count) for n, count in enumerate(accepted)]


@pytest.mark.parametrize(
    ("accepted", "k", "late", "chosen"),
    [
        ((), 4, True, 0),
        ((3,), 4, False, 0),
        ((3,), 4, True, 1),
        ((3, 1), 4, False, 2),
        ((3, 1, 8), 4, False, 2),
        ((3, 8), 4, False, 2),
        ((0, 0), 4, True, 0),  # nothing was accepted: nothing to merge
        ((0, 2, 0), 4, True, 3),
        ((8,), 1, False, 1),
    ],
)
def test_a_version_is_made_at_k_updates_or_at_the_deadline(
    accepted: tuple[int, ...], k: int, chosen: int, *, late: bool
) -> None:
    assert len(choose(queue(*accepted), rules(k), deadline_passed=late)) == chosen


@given(accepted=st.lists(st.integers(0, 8), max_size=30), k=st.integers(1, 20), late=st.booleans())
def test_a_version_never_exceeds_its_bound_and_is_a_prefix(
    accepted: list[int], k: int, *, late: bool
) -> None:
    there = queue(*accepted)
    chosen = choose(there, rules(k), deadline_passed=late)
    assert list(chosen) == there[: len(chosen)]
    assert sum(a.accepted for a in chosen) <= rules(k).updates_per_version_max


def test_a_window_of_an_earlier_larger_policy_is_merged_by_itself() -> None:
    """Regression: it was above the new policy's bound, and nothing was ever merged again."""
    small = rules(k=1, window=1)
    chosen = choose(queue(5, 5), small, deadline_passed=False)
    assert len(chosen) == 1
    parent = Checkpoint(np.zeros(LAYOUT.parameters, dtype=np.float32), {})
    total = np.full(LAYOUT.parameters, 5 << 32, dtype=np.int64)
    step = merge(
        parent, total, updates=5, weight_total=5 << 16, policy=small, server=small.server, layout=LAYOUT
    )
    assert step.checkpoint.model.tolist() == [1.0] * LAYOUT.parameters


def test_what_no_longer_fits_the_bound_does_not_hold_back_what_does() -> None:
    tight = rules(k=6, window=1)  # at most 6 updates a version
    assert len(choose(queue(4, 5), tight, deadline_passed=False)) == 1


# Sums


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 1 << 30))
def test_any_grouping_of_the_windows_gives_the_same_bits(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = [rng.integers(-(1 << 59), 1 << 59, LAYOUT.parameters) for _ in range(count)]
    flat = add_sums(windows, LAYOUT.parameters)
    while len(windows) > 1:
        i, j = rng.choice(len(windows), 2, replace=False)
        both = add_sums([windows[i], windows[j]], LAYOUT.parameters)
        windows = [w for n, w in enumerate(windows) if n not in (i, j)] + [both]
    assert windows[0].tobytes() == flat.tobytes()


def test_the_sum_of_nothing_is_zero() -> None:
    assert add_sums([], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_would_wrap_around_are_refused(sign: int) -> None:
    """Windows that were summed under different policies are bounded by neither alone."""
    half = np.array([0, sign * (1 << 62)], dtype=np.int64)
    assert add_sums([half], 2).tolist() == half.tolist()
    with pytest.raises(IntegrityProblem) as caught:
        add_sums([half, half], 2)
    assert caught.value.error_id == "FLV-3004"


@pytest.mark.parametrize(("updates", "weight"), [(0, 0), (-1, 5), (3, 0)])
def test_a_version_of_nothing_is_refused(updates: int, weight: int) -> None:
    parent = Checkpoint(np.zeros(LAYOUT.parameters, dtype=np.float32), {})
    with pytest.raises(IntegrityProblem) as caught:
        merge(
            parent,
            np.zeros(LAYOUT.parameters, dtype=np.int64),
            updates=updates,
            weight_total=weight,
            policy=policy(),
            server=policy().server,
            layout=LAYOUT,
        )
    assert caught.value.error_id == "FLV-3004"


# FedBuff


def folded(
    one: Policy, count: int
) -> tuple[npt.NDArray[np.int64], int, list[npt.NDArray[np.float64]], list[int]]:
    """The sums of ``count`` float32 updates of mixed staleness, and what they were made of."""
    site = Site(state_of(one))
    for version in (1, 2, 3):
        site.fold(barrier(version, one))
    deltas, taus = [], []
    for n, name in enumerate(devices(count)):
        values = delta(n, size=0.05 * (1 + n))
        site.fold(update(name, base=3 - n % 4, codec="float32", tensors=encoded(values, "float32")))
        deltas.append(values.astype(np.float64))
        taus.append(n % 4)
    (window,) = site.closed
    assert window.sums is not None
    return window.sums, window.weight_total, deltas, taus


@pytest.mark.parametrize("learning_rate", [1.0, 0.25])
def test_one_version_is_fedbuffs_step(learning_rate: float) -> None:
    one = policy(
        window={"updates_max": 12},
        updates={"norm_clip": 1.0},
        server={"learning_rate": learning_rate},
        anomaly={"enabled": False},
    )
    sums, weight_total, deltas, taus = folded(one, 12)
    model = delta(99).astype(np.float32)
    step = merge(
        Checkpoint(model, {}),
        sums,
        updates=12,
        weight_total=weight_total,
        policy=one,
        server=one.server,
        layout=LAYOUT,
    )
    expected = naive.fedbuff_step(
        model.astype(np.float64), deltas, taus, norm_clip=1.0, learning_rate=learning_rate
    )
    assert step.checkpoint.model.dtype == np.float32
    assert step.checkpoint.model == pytest.approx(expected, abs=1e-5)


def test_dividing_by_weights_gives_the_weighted_mean() -> None:
    one = policy(window={"updates_max": 8}, server={"divide_by": "weights"}, anomaly={"enabled": False})
    sums, weight_total, deltas, taus = folded(one, 8)
    parent = Checkpoint(np.zeros(LAYOUT.parameters, dtype=np.float32), {})
    step = merge(
        parent, sums, updates=8, weight_total=weight_total, policy=one, server=one.server, layout=LAYOUT
    )
    weights = [1 / np.sqrt(1 + tau) for tau in taus]
    expected = sum(w * d for w, d in zip(weights, deltas, strict=True)) / sum(weights)
    assert step.checkpoint.model == pytest.approx(expected, abs=1e-5)


def test_the_reference_is_the_direction_of_the_step() -> None:
    one = policy(window={"updates_max": 8}, anomaly={"enabled": False})
    sums, weight_total, _, _ = folded(one, 8)
    model = delta(99).astype(np.float32)
    step = merge(
        Checkpoint(model, {}),
        sums,
        updates=8,
        weight_total=weight_total,
        policy=one,
        server=one.server,
        layout=LAYOUT,
    )
    moved = step.checkpoint.model.astype(np.float64) - model
    there = step.reference.q * np.repeat(step.reference.scales, np.diff(LAYOUT.starts))
    assert float(moved @ there / np.linalg.norm(moved) / np.linalg.norm(there)) > 0.999
