"""Patience: an outage is waited for, every attempt is real, and what is no outage passes at once."""

from __future__ import annotations

import logging

import pytest

from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem
from backends.outages import retry_through_outage


class SteppedClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept_s)

    def time(self) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


class Failing:
    """Raises its errors one after another, then gives 7."""

    def __init__(self, *errors: FluvialError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


@pytest.mark.parametrize("failures", [0, 1, 2, 5])
def test_each_failure_is_one_attempt_one_wait_and_one_warning(
    failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    action, clock = (
        Failing(*(ConnectionProblem("FLV-3100", f"no. {n}") for n in range(failures))),
        SteppedClock(),
    )
    with caplog.at_level(logging.WARNING, "fluvial"):
        assert retry_through_outage("read", action, clock=clock) == 7
    assert (action.calls, len(clock.slept_s)) == (failures + 1, failures)
    assert [f"no. {n}" in line for n, line in enumerate(caplog.messages)] == [True] * failures


@pytest.mark.parametrize("outages", [0, 1, 2])
def test_what_is_no_outage_passes(outages: int) -> None:
    raised = IntegrityProblem("FLV-3001", "a gap")
    action, clock = Failing(*[ConnectionProblem("FLV-3100", "away")] * outages, raised), SteppedClock()
    with pytest.raises(IntegrityProblem) as caught:
        retry_through_outage("read", action, clock=clock)
    assert caught.value is raised
    assert (action.calls, len(clock.slept_s)) == (outages + 1, outages)
