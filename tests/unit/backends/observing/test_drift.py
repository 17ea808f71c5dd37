"""Drift: a rise for good is an alarm, once; noise, one odd version, and a task that learns are none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from aggregation.defences.usual import Histograms, norm_bucket, norm_of_bucket
from backends.observing.drift import LEAST, Drift, usual_norm
from tests import factories


def alarms(values: list[float]) -> list[int]:
    one = Drift()
    return [at for at, value in enumerate(values) if one.add(value)]


def noise(number: int, seed: int, spread: float = 0.1) -> list[float]:
    return list(1.0 + spread * np.random.default_rng(seed).standard_normal(number))


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_drift(seed: int) -> None:
    assert len(alarms(noise(2000, seed))) <= 1


@pytest.mark.parametrize("seed", range(10))
def test_a_rise_for_good_is_one_alarm_soon(seed: int) -> None:
    rising = noise(200, seed) + [value + 0.4 for value in noise(200, seed + 100)]
    found = alarms(rising)
    assert len(found) <= 2 and any(200 <= at < 225 for at in found)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_scale_is_no_matter(scale: float) -> None:
    values = noise(100, 1) + [value * 1.6 for value in noise(100, 2)]
    assert alarms([scale * value for value in values]) == alarms(values) != []


def test_a_task_that_learns_does_not_drift_and_one_that_forgets_does() -> None:
    losses = [2.3 * math.exp(-at / 30) + 0.3 + 0.02 * value for at, value in enumerate(noise(300, 3, 1.0))]
    assert alarms(losses) == []
    assert alarms(losses + [0.36 + 0.02 * value + 0.2 for value in noise(50, 4, 1.0)]) != []


def test_one_odd_version_is_no_drift() -> None:
    values = noise(100, 5)
    values[60] = 1e6
    assert alarms(values) == []


def test_a_number_that_never_moves_is_no_drift_until_it_does() -> None:
    assert alarms([0.5] * 200) == []
    assert alarms([0.0] * 200) == []
    (at,) = alarms([0.5] * 100 + [0.6] * 30)
    assert 100 <= at < 110


def test_after_an_alarm_it_learns_the_new_level() -> None:
    values = noise(60, 6) + [value + 2.0 for value in noise(200, 7)]
    (at,) = alarms(values)
    assert at < 70


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e200, -1.7e308])
def test_what_is_no_number_is_passed_over(odd: float) -> None:
    values = noise(100, 8) + [1.6] * 30
    with_odd = [one for value in values for one in (value, odd)]
    assert [at // 2 for at in alarms(with_odd)] == alarms(values) != []


@pytest.mark.parametrize("huge", [1e6, 1e99])
@pytest.mark.parametrize("at", [0, 5, 60])
def test_one_huge_number_makes_it_blind_for_a_while_at_most(huge: float, at: int) -> None:
    values = noise(1200, 9)
    values[at] = huge
    one = Drift()
    for value in values:
        one.add(value)
    assert math.isfinite(one.statistic) and one.mean < 2.0 * huge
    later = Drift(one.seen, one.mean, one.variance, one.statistic)
    assert any(later.add(value + (3.0 if at >= LEAST else huge)) for value in noise(60, 10))


def test_a_task_that_diverges_drifts() -> None:
    losses = noise(60, 11) + [10.0**power for power in range(1, 90)]
    assert any(60 <= at < 70 for at in alarms(losses))


def test_it_only_learns_at_first() -> None:
    assert alarms([1.0] * (LEAST // 2) + [100.0] * (LEAST // 2)) == []


def test_the_usual_norm_is_the_median_over_a_versions_windows() -> None:
    def window(*norms: float) -> object:
        return replace(
            factories.aggregate("eu", 0, 0),
            histograms=Histograms(norms=tuple(sorted((norm_bucket(norm), 840) for norm in norms))),
        )

    chosen = [window(1.0, 2.0), window(4.0), factories.aggregate("eu", 0, 1)]
    assert usual_norm(chosen) == norm_of_bucket(norm_bucket(2.0))  # type: ignore[arg-type]
    assert math.isnan(usual_norm([]))
