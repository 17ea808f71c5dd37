"""When a device should come back: held against the lot itself, version by version and turn by turn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.selection import Candidate, is_selected, turns_after
from producers.sdk.pace import OVERDUE, Heard, next_turn, pace_s
from producers.sdk.updates import TURNS_LATE
from tests import factories
from tests.factories import TASK, model_sha

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from producers.sdk.pace import Turn

DEVICE = "d-0001"


def policy(**selection: Any) -> Policy:
    return factories.policy(
        format="fluvial/policy/v6", selection=selection, buffer={"seconds_max": 10.0, "seconds_min": 0.0}
    )


def asked(
    rules: Policy,
    version: int,
    since_s: float,
    *,
    newer_than: int,
    usual_s: float | None = 4.0,
    device: str = DEVICE,
    cohort: str = "",
) -> Turn:
    heard = Heard(version, model_sha(version), "", since_s, usual_s)
    return next_turn(rules, TASK, device, cohort, heard, newer_than=newer_than)


def chosen(rules: Policy, version: int, turns: int = 0, device: str = DEVICE) -> bool:
    return is_selected(rules.selection, Candidate(TASK, device, version, model_sha(version), turns))


def test_the_usual_pace_is_the_median_of_what_was_announced() -> None:
    assert pace_s([]) is None
    assert pace_s([(3, 1000)]) is None
    assert pace_s([(3, 1000), (4, 3000), (5, 5000), (6, 65_000)]) == 2.0
    assert pace_s([(3, 1000), (7, 9000)]) == 2.0, "versions that were compacted away count"
    assert pace_s([(3, 5000), (4, 5000), (5, 4000)]) is None, "a clock that steps back says nothing"


def test_where_everybody_may_it_is_now_or_when_the_next_version_comes() -> None:
    rules = policy(kind="all")
    assert asked(rules, 5, 1.0, newer_than=4) == (0.0, 5, True)
    assert asked(rules, 5, 1.0, newer_than=5) == (3.0, 6, True)
    assert asked(rules, 5, 1.0, newer_than=5, usual_s=None) == (9.0, 6, True), "at the deadline"
    assert asked(rules, 5, 400.0, newer_than=5).wait_s == OVERDUE * 4.0


def test_version_0_is_everybodys() -> None:
    for rules in (policy(kind="slots", slots=100), policy(kind="cohorts", share=0.0, cohorts={"a": 1.0})):
        assert asked(rules, 0, 3.0, newer_than=-1) == (0.0, 0, True)


@given(st.integers(1, 60), st.integers(1, 300), st.integers(0, 50))
def test_with_slots_the_own_turn_is_foreseen(slots: int, version: int, number: int) -> None:
    rules, device = policy(kind="slots", slots=slots), f"d-{number}"
    then = asked(rules, version, 0.0, newer_than=version, device=device)
    own = next(one for one in range(version + 1, version + 1 + slots) if chosen(rules, one, device=device))
    assert then == (4.0 * (own - version), own, True)


@given(st.integers(1, 100), st.floats(0.0, 200.0), st.integers(0, 50), st.sampled_from(["share", "slots"]))
def test_a_widening_lot_is_foreseen_as_the_device_itself_would_take_it(
    version: int, since_s: float, number: int, kind: str
) -> None:
    rules = policy(kind=kind, **({"share": 0.05} if kind == "share" else {"slots": 7}))
    device = f"d-{number}"
    turn = next(turns for turns in range(64) if chosen(rules, version, turns, device))
    now = asked(rules, version, since_s, newer_than=version - 1, usual_s=1e6, device=device)
    taken_s = (turn + TURNS_LATE) * 10.0 if turn else 0.0
    assert now.version == version and now.wait_s == pytest.approx(max(0.0, taken_s - since_s))
    if now.wait_s == 0.0:
        turns = max(0, turns_after(since_s, 10.0) - TURNS_LATE)
        assert chosen(rules, version, turns, device) or taken_s == pytest.approx(since_s)


def test_of_a_share_the_next_lot_cannot_be_foreseen() -> None:
    rules = policy(kind="share", share=0.01)
    version = next(one for one in range(1, 100) if not chosen(rules, one))
    assert asked(rules, version, 1.0, newer_than=version - 1) == (3.0, version + 1, False)


@pytest.mark.parametrize("newer_than", [4, 5])
def test_a_cohort_that_is_never_asked_need_not_come(newer_than: int) -> None:
    rules = policy(kind="cohorts", share=1.0, cohorts={"away": 0.0})
    assert asked(rules, 5, 1.0, newer_than=newer_than, cohort="away").wait_s == math.inf
    assert asked(rules, 5, 1.0, newer_than=newer_than).wait_s < math.inf
