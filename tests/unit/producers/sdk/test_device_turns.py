"""A device waits for a version that it may answer: for a newer one, or until so many more are asked that it is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from aggregation.errors import TimeoutProblem, UsageProblem
from aggregation.selection import Candidate, is_selected
from producers.sdk.bases import Base
from producers.sdk.device import Device
from producers.sdk.updates import TURNS_LATE, Author, Contribution
from schemas.records import Announcement
from tests import factories
from tests.factories import TASK, model_sha

if TYPE_CHECKING:
    from aggregation.policy import Policy

DEVICE = "d-0001"


class Hours:
    """A clock that stands still until somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Versions:
    """Announcements by a timetable: version n comes ``every`` seconds after the one before, up to ``last``."""

    def __init__(self, clock: Hours, every: float, last: int) -> None:
        self.clock, self.every, self.last, self.began = clock, every, last, clock.now

    def wait_for(self, region: str, version: int, timeout_s: float) -> int:
        newest = min(self.last, int((self.clock.now - self.began) / self.every))
        if newest >= version:
            return newest
        comes_in_s = self.began + version * self.every - self.clock.now
        if version > self.last or comes_in_s > timeout_s:
            self.clock.sleep(timeout_s)
            raise TimeoutProblem("FLV-2502", f"no {version} for {region}")
        self.clock.sleep(comes_in_s)
        return version

    def times_ms(self, _region: str) -> list[tuple[int, int]]:
        newest = min(self.last, int((self.clock.now - self.began) / self.every))
        return [(one, round(1000 * (self.began + one * self.every))) for one in range(newest + 1)][-16:]


class Models:
    def __init__(self, policy: Policy) -> None:
        self.rules = policy

    def policy(self, _sha256: str) -> Policy:
        return self.rules

    def announced(self, version: int) -> Base:
        return Base(version, model_sha(version), np.zeros(1, dtype=np.float32), self.rules)


def device(rules: Policy, *, every: float, last: int = 1000, cohort: str = "") -> tuple[Device, Hours]:
    clock, signer = Hours(), factories.device_signer(DEVICE)
    author = Author(cast("Any", SimpleNamespace(task=TASK)), "eu", DEVICE, signer, cohort=cohort)
    made = Device(
        cast("Any", None),  # nothing is published
        author,
        bases=cast("Any", Models(rules)),
        writer=cast("Any", None),
        announcements=cast("Any", Versions(clock, every, last)),
        clock=clock,
    )
    return made, clock


def slots(many: int, seconds_max: float = 10.0) -> Policy:
    return factories.policy(
        format="fluvial/policy/v5",
        selection={"kind": "slots", "slots": many},
        buffer={"seconds_max": seconds_max},
    )


def turn_of(rules: Policy) -> int:
    """The first version above 0 whose turn is this device's."""
    return next(
        version
        for version in range(1, 1000)
        if is_selected(rules.selection, Candidate(TASK, DEVICE, version, model_sha(version)))
    )


def test_everybody_may_answer_the_first_version() -> None:
    one, _ = device(slots(50), every=5.0)
    assert one.fetch_selected().version == 0


def test_a_device_waits_for_the_version_whose_turn_is_its_own() -> None:
    rules = slots(50)
    one, _ = device(rules, every=5.0)
    base = one.fetch_selected(newer_than=0, timeout_s=1000.0)
    assert base.version == turn_of(rules)
    assert one.is_selected(base)


def test_where_no_version_comes_it_waits_until_more_are_asked() -> None:
    rules = slots(6)
    one, clock = device(rules, every=1.0, last=1)
    began = clock.now
    base = one.fetch_selected(newer_than=0, timeout_s=1000.0)
    turns = (base.version - turn_of(rules)) % 6
    assert base.version == 1
    late_s = (turns + TURNS_LATE) * 10.0 if turns else 0.0
    assert late_s <= clock.now - began - 1.0 <= late_s + 1.0
    assert not one.is_selected(base) or not turns
    assert one.is_selected(base, late_s)
    assert not turns or not one.is_selected(base, late_s - 0.001), (
        "the log's times may step back by a deadline"
    )


def test_a_turn_that_does_not_come_in_time_is_said_so() -> None:
    rules = slots(10_000)
    one, clock = device(rules, every=1.0, last=1)
    began = clock.now
    with pytest.raises(TimeoutProblem, match="may not answer version 1") as caught:
        one.fetch_selected(newer_than=0, timeout_s=25.0)
    assert caught.value.error_id == "FLV-2508"
    assert clock.now - began == pytest.approx(25.0)


def test_no_version_at_all_is_said_as_ever() -> None:
    one, _ = device(slots(4), every=1.0, last=3)
    with pytest.raises(TimeoutProblem) as caught:
        one.fetch_selected(newer_than=3, timeout_s=5.0)
    assert caught.value.error_id == "FLV-2502"


def test_without_a_selection_it_is_a_fetch() -> None:
    one, clock = device(factories.policy(format="fluvial/policy/v5"), every=5.0)
    began = clock.now
    assert one.fetch_selected(newer_than=0).version == 1
    assert clock.now - began == 5.0


def by_cohorts(share: float, **cohorts: float) -> Policy:
    return factories.policy(
        format="fluvial/policy/v6",
        selection={"kind": "cohorts", "share": share, "cohorts": cohorts},
        buffer={"seconds_max": 10.0},
    )


@pytest.mark.parametrize("cohort", ["", "old", "other"])
def test_a_device_draws_its_lot_by_the_cohort_of_its_certificate(cohort: str) -> None:
    rules = by_cohorts(0.02, old=0.3)
    one, _ = device(rules, every=5.0, cohort=cohort)
    base = one.fetch_selected(newer_than=0, timeout_s=10_000.0)
    lots = {
        version: is_selected(rules.selection, Candidate(TASK, DEVICE, version, model_sha(version), 0, cohort))
        for version in range(1, base.version + 1)
    }
    assert [version for version, chosen in lots.items() if chosen] == [base.version]


def test_a_device_whose_cohort_is_never_asked_is_told_so() -> None:
    one, _ = device(by_cohorts(1.0, old=0.0), every=5.0, cohort="old")
    assert one.fetch_selected(timeout_s=1.0).version == 0
    with pytest.raises(TimeoutProblem) as caught:
        one.fetch_selected(newer_than=0, timeout_s=100.0)
    assert caught.value.error_id == "FLV-2508"
    assert "share is 0" in caught.value.hint


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_what_an_older_policy_would_refuse_is_not_published(number: int) -> None:
    older = factories.policy(format=f"fluvial/policy/v{number}")
    one, _ = device(older, every=5.0, cohort="old")
    with pytest.raises(UsageProblem) as caught:
        one.publish(one.fetch(), Contribution(np.zeros(1, dtype=np.float32), 1, 0.0))
    assert caught.value.error_id == "FLV-2509"


def test_a_device_that_sleeps_until_its_turn_is_selected_when_it_wakes() -> None:
    """The announcements of ``Versions`` are numbers; here they are told as they are."""
    rules = slots(6)
    one, clock = device(rules, every=5.0)
    clock.sleep(31.0)
    announced, models, wait_for = cast("Any", one._announcements), cast("Any", one._bases), Versions.wait_for

    def told(*words: Any) -> Announcement:
        version = wait_for(announced, *words)
        return Announcement(TASK, "eu", version, "", model_sha(version), rules.sha256)

    announced.wait_for = told
    models.announced = lambda one: Models.announced(models, one.version)
    turn = one.next_turn(newer_than=6)
    assert turn.version == next(v for v in range(7, 13) if (v - turn_of(rules)) % 6 == 0)
    clock.sleep(turn.wait_s)
    base = one.fetch(newer_than=6)
    assert base.version == turn.version and one.is_selected(base)
