"""Rates by version, held against the formulas in exact or long arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
from aggregation.policy import NEWEST, SchedulePolicy
from aggregation.schedules import SCHEDULES, rate_after, schedule_named
from aggregation.server.rates import server_at
from tests.factories import policy


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_begins_at_the_full_rate_and_never_rises(name: str) -> None:
    rules = SchedulePolicy(kind=name, versions=10, factor=0.25)
    rates = [rate_after(step, 0.8, rules) for step in range(40)]
    assert rates[0] == 0.8
    assert rates == sorted(rates, reverse=True)
    assert SCHEDULES[name].name == name


@pytest.mark.parametrize("name", SCHEDULES)
def test_warming_up_it_rises_evenly_and_then_the_schedule_begins(name: str) -> None:
    plain = SchedulePolicy(kind=name, versions=10, factor=0.25)
    warm = SchedulePolicy(kind=name, versions=10, factor=0.25, warmup_versions=4)
    assert [rate_after(step, 0.8, warm) for step in range(4)] == [0.8 * 0.25, 0.8 * 0.5, 0.8 * 0.75, 0.8]
    after = [rate_after(step + 4, 0.8, warm) for step in range(30)]
    assert after == [rate_after(step, 0.8, plain) for step in range(30)]


def test_constant_is_constant() -> None:
    assert {rate_after(step, 0.3, SchedulePolicy()) for step in (0, 1, 10**9)} == {0.3}


def test_step_falls_by_its_factor_and_stops_after_64_times() -> None:
    rules = SchedulePolicy(kind="step", versions=3, factor=0.5)
    assert [rate_after(step, 1.0, rules) for step in range(7)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert rate_after(10**9, 1.0, rules) == 0.5**64


@given(st.integers(1, 10**9), st.floats(0.0, 1.0), st.data())
def test_cosine_is_half_a_cosine(versions: int, factor: float, data: Any) -> None:
    step = data.draw(st.integers(0, versions + 3))
    rate = rate_after(step, 1.0, SchedulePolicy(kind="cosine", versions=versions, factor=factor))
    part = min(step, versions) / versions
    assert rate == pytest.approx(factor + (1.0 - factor) * 0.5 * (1.0 + math.cos(math.pi * part)), abs=1e-15)
    assert 0.0 <= rate <= 1.0


def test_cosines_bits_are_those_of_the_written_order() -> None:
    """Each operation in fractions, rounded once by ``float``: that is what correctly rounded means."""

    def once(number: Fraction) -> Fraction:
        return Fraction(float(number))

    versions, factor, rate = 40, 0.1, 0.7
    for step in range(versions):
        angle = once(Fraction(1.5707963267948966) * once(Fraction(step, versions)))
        squared, cosine = once(angle * angle), Fraction(1)
        for k in range(12, 0, -1):
            cosine = once(1 - once(once(squared / ((2 * k - 1) * 2 * k)) * cosine))
        share = once(cosine * cosine)
        lowest = Fraction(factor)
        full = once(Fraction(rate) * once(lowest + once(once(1 - lowest) * share)))
        assert rate_after(step, rate, SchedulePolicy(kind="cosine", versions=40, factor=0.1)) == full


def test_a_version_is_made_by_the_rate_of_the_steps_before_it() -> None:
    rules = policy(
        format=NEWEST, server={"learning_rate": 0.5}, schedule={"kind": "step", "versions": 2, "factor": 0.5}
    )
    assert [server_at(rules, version, 0).learning_rate for version in range(1, 6)] == [
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
    ]
    assert server_at(rules, 3, 0).optimizer == rules.server.optimizer


def test_a_delayed_version_takes_at_most_one_over_its_delay() -> None:
    rules = policy(format=NEWEST, server={"learning_rate": 0.3, "delay_versions_max": 3})
    rates = [server_at(rules, 1, delay).learning_rate for delay in (0, 3, 4, 10)]
    assert rates == [0.3, 0.3, 0.25, 0.1]
    assert server_at(policy(format=NEWEST, server={"learning_rate": 0.3}), 1, 10).learning_rate == 0.3


def test_an_unknown_schedule_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match="constant, step, cosine"):
        schedule_named("warm")
