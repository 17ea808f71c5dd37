"""Anomaly scores through the fold: attackers are found, honest devices are not locked out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import Direction, direction_of
from aggregation.defences import Judged, NormHistory, Seen, Usual, defence_named
from aggregation.policy import DefencePolicy, Policy
from aggregation.reasons import Reason
from tests.factories import LAYOUT, Site, barrier, delta, devices, encoded, policy, state_of, update

RULES = policy(
    window={"updates_max": 1000},
    anomaly={"history_updates": 32, "history_updates_min": 8, "norm_deviations_max": 6.0, "cosine_min": -0.5},
)
STEP = delta(1)


def reference() -> Direction:
    return direction_of(STEP.astype(np.float64), LAYOUT)


def site(rules: Policy = RULES, *, with_reference: bool = True) -> Site:
    """A partition at version 1, whose last step was ``STEP``."""
    made = Site(state_of(rules))
    made.fold(barrier(1, rules, reference() if with_reference else None))
    return made


def send(
    to: Site, device: str, factor: float = 1.0, *, noise: float = 0.02, seed: int = 0, base: int = 1
) -> str:
    """One update: the last step times ``factor`` and some noise; returns its outcome."""
    values = (factor * STEP + delta(seed + 1000, size=noise)).astype(np.float32)
    return to.fold(update(device, base=base, tensors=encoded(values, seed=seed))).outcome


def sorted_twice(norms: list[float], norm: float) -> float:
    """The score as its formula says it."""
    median = sorted(norms)[len(norms) // 2]
    mad = sorted(abs(one - median) for one in norms)[len(norms) // 2]
    spread = max(1.4826 * mad, 0.1 * median)
    return (norm - median) / spread if spread > 0.0 else 0.0


SCORED = st.one_of(st.floats(0, 1e300), st.sampled_from([0.0, 0.1, 0.2, 0.3, 5e-324, 1.0, 1.0 + 2**-52]))


@settings(deadline=None)
@given(st.lists(SCORED, min_size=1, max_size=40), SCORED, st.integers(1, 12))
def test_the_score_is_the_formulas_to_the_bit(norms: list[float], norm: float, length_max: int) -> None:
    history = NormHistory()
    for n, one in enumerate(norms):
        history.append(one, length_max)
        kept = norms[max(0, n + 1 - length_max) : n + 1]
        assert history.values() == kept
        assert history.deviations(norm) == sorted_twice(kept, norm)
    assert NormHistory(norms).deviations(norm) == sorted_twice(norms, norm)


def test_honest_updates_are_all_accepted() -> None:
    here = site()
    assert {send(here, name, seed=n) for n, name in enumerate(devices(60))} == {"accepted"}


def test_a_sign_flip_points_against_the_last_step_and_is_refused_with_its_cosine() -> None:
    here = site()
    assert send(here, "d-0", factor=-1.0) == "anomalous"
    verdict = here.verdicts[-1]
    assert verdict.cosine < -0.9
    assert "cosine" in verdict.detail
    assert verdict.norm > 0


def test_without_a_last_step_there_is_no_direction_to_point_against() -> None:
    here = site(with_reference=False)
    assert send(here, "d-0", factor=-1.0) == "accepted"
    assert here.verdicts[-1].cosine == 0.0


def test_a_large_norm_is_refused_once_there_is_a_history_to_compare_with() -> None:
    here = site()
    outcomes = [send(here, name, seed=n) for n, name in enumerate(devices(8))]
    assert send(here, "big", factor=5.0) == "anomalous"
    assert here.verdicts[-1].norm_deviations > RULES.defence.norm_deviations_max
    assert outcomes == ["accepted"] * 8


def test_before_there_is_a_history_a_large_norm_is_only_clipped() -> None:
    here = site(policy(updates={"norm_clip": 0.1}))
    assert send(here, "big", factor=5.0) == "accepted"
    verdict = here.verdicts[-1]
    assert verdict.clip == pytest.approx(0.1 / verdict.norm)
    assert "clipped from norm" in verdict.detail


def test_a_small_norm_is_not_suspicious() -> None:
    here = site()
    for n, name in enumerate(devices(20)):
        send(here, name, seed=n)
    assert send(here, "small", factor=0.001, noise=0.0001) == "accepted"


def test_one_device_cannot_fill_the_history() -> None:
    here = site()
    for n, name in enumerate(devices(16)):
        send(here, name, seed=n)
    before = here.state.history.values()
    outcomes = [send(here, "evil", factor=30.0, seed=n) for n in range(200)]
    assert outcomes == ["anomalous"] + ["duplicate"] * 199
    assert len(here.state.history) == len(before) + 1
    assert send(here, "evil-2", factor=30.0) == "anomalous"


def test_a_refused_norm_above_the_hard_bound_does_not_enter_the_history() -> None:
    here = site(policy(updates={"norm_max": 20.0}))
    assert send(here, "evil", factor=1e4) == "norm_exceeded"
    assert len(here.state.history) == 0
    assert send(here, "evil") == "accepted"  # nor does it use up the device's contribution


def test_when_all_norms_shift_the_history_follows_and_nobody_is_locked_out_for_ever() -> None:
    here = site()
    for n, name in enumerate(devices(40)):
        send(here, name, seed=n)
    outcomes = [send(here, name, factor=10.0, seed=n) for n, name in enumerate(devices(40, start=100))]
    assert outcomes[0] == "anomalous"
    assert outcomes[-8:] == ["accepted"] * 8
    assert outcomes.index("accepted") <= RULES.defence.history_updates // 2 + 1


def test_switched_off_nothing_is_anomalous() -> None:
    here = site(policy(anomaly={"enabled": False}, window={"updates_max": 1000}))
    for n, name in enumerate(devices(20)):
        send(here, name, seed=n)
    assert send(here, "flip", factor=-1.0) == "accepted"
    assert send(here, "big", factor=50.0) == "accepted"
    assert here.verdicts[-2].cosine < -0.9  # the score is still published


def test_the_history_keeps_the_last_norms_only() -> None:
    history = NormHistory()
    for n in range(10):
        history.append(float(n), 4)
    assert history.values() == [6.0, 7.0, 8.0, 9.0]
    history.append(1.0, 2)
    assert history.values() == [9.0, 1.0]


@pytest.mark.parametrize(
    ("norms", "norm", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 0.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0 + 1.4826, 1.0),
        ([2.0] * 5, 2.2, 1.0),  # no spread: a tenth of the median stands for it
        ([2.0] * 5, 1.0, -5.0),
        ([0.0] * 5, 7.0, 0.0),  # all zeros say nothing
    ],
)
def test_deviations_are_the_robust_z_score(norms: list[float], norm: float, expected: float) -> None:
    assert NormHistory(norms).deviations(norm) == pytest.approx(expected)


def judged(rules: DefencePolicy, history: NormHistory, norm: float, cosine: float) -> Reason | None:
    found: Judged = defence_named("peers").judge(rules, Seen(norm, cosine, compared=True), Usual(), history)
    return None if found.problem is None else found.problem.reason


def test_the_bounds_themselves_still_pass() -> None:
    rules = DefencePolicy(kind="peers", norm_deviations_max=1.0, cosine_min=0.25, history_updates_min=2)
    history = NormHistory([10.0] * 3)  # a spread of 1
    edge = 11.0
    assert judged(rules, history, edge, 0.25) is None
    assert judged(rules, history, np.nextafter(edge, 99), 0.25) is Reason.DEVIATES
    assert judged(rules, history, edge, np.nextafter(0.25, 0)) is Reason.AGAINST
