"""Synchronous rounds, lots, and weights by examples: what the fold lets in, and what a merge makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
from aggregation.fold.rejections import RejectionReason
from aggregation.policy import Policy
from aggregation.reasons import Reason
from aggregation.selection import Candidate, is_selected
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import MergedWindows, lateness_under
from aggregation.server.merge import choose
from aggregation.weights.examples import by_examples
from aggregation.weights.fixed_point import WEIGHT_ONE
from tests import factories
from tests.factories import (
    NOW_MS,
    TASK,
    Site,
    barrier,
    devices,
    model_sha,
    state_of,
    update,
)


def policy(**sections: Any) -> Policy:
    return factories.policy(format="fluvial/policy/v5", **sections)


def aggregate(sequence: int = 0, **changed: Any) -> Aggregate:
    return replace(factories.aggregate("eu", 0, sequence), **changed)


def site_of(rules: Policy, version: int = 0) -> Site:
    site = Site(state_of(rules))
    for number in range(1, version + 1):
        site.fold(barrier(number, rules))
    return site


def rounds(**buffer: Any) -> Policy:
    return policy(buffer={"mode": "rounds", "updates": 5} | buffer)


# -- rounds


def test_in_rounds_only_the_newest_version_is_answered() -> None:
    site = site_of(rounds(), 2)
    ones = devices(4)
    assert site.fold(update(ones[0], base=2)).outcome == "accepted"
    late = site.fold(update(ones[1], base=1))
    assert (late.outcome, late.because.reason) == ("round_over", Reason.ROUND_OVER)
    assert late.because.text == "the round of version 1 is over, the task is at version 2"
    assert site.fold(update(ones[2], base=-5)).outcome == "round_over"
    assert site.fold(update(ones[3], base=3)).outcome == "future_base"


def test_a_late_answer_uses_nothing_up() -> None:
    site = site_of(rounds(), 1)
    (one,) = devices(1)
    shares, counted = len(site.state.shares), site.state.counted.pairs
    assert site.fold(update(one, base=0)).outcome == "round_over"
    assert (len(site.state.shares), site.state.counted.pairs) == (shares, counted)
    assert site.fold(update(one, base=1)).outcome == "accepted"


def test_a_base_that_is_young_in_time_is_late_all_the_same() -> None:
    rules = policy(buffer={"mode": "rounds"}, staleness={"seconds_max": 600.0})
    site = Site(state_of(rules))
    site.fold(barrier(1, rules, timestamp_ms=NOW_MS))
    assert site.fold(update(devices(1)[0], base=0, timestamp_ms=NOW_MS + 1)).outcome == "round_over"


def test_a_window_of_an_earlier_round_is_dropped_and_named() -> None:
    rules = rounds()
    early, current = aggregate(version=3, accepted=4), aggregate(version=4, accepted=2, sequence=1)
    merged = MergedWindows.of([early, current], lateness_under(rules, 4))
    assert merged.weights == (0, WEIGHT_ONE)
    assert (merged.accepted, merged.dropped) == (2, 4)


def test_late_windows_do_not_count_in_rounds_whatever_the_policy_says_of_them() -> None:
    for late in (True, False):
        lateness = lateness_under(rounds(late_windows=late), 4)
        assert lateness.weight_of(aggregate(version=3)) == 0
        assert lateness.weight_of(aggregate(version=4)) == WEIGHT_ONE


@pytest.mark.parametrize("mode", ["rounds", "buffer"])
@pytest.mark.parametrize(
    ("accepted", "late", "chosen"),
    [((2, 2), False, 0), ((2, 2), True, 0), ((2, 1, 1), True, 0), ((2, 3), False, 2), ((2, 2, 9), False, 3)],
)
def test_at_the_deadline_a_version_has_its_quorum(
    mode: str,
    accepted: tuple[int, ...],
    late: bool,  # noqa: FBT001
    chosen: int,
) -> None:
    rules = policy(buffer={"mode": mode, "updates": 5, "quorum": 5})
    waiting = [aggregate(version=1, accepted=many, sequence=at) for at, many in enumerate(accepted)]
    assert len(choose(waiting, rules, deadline_passed=late, lateness=lateness_under(rules, 1))) == chosen
    fewer = policy(buffer={"mode": mode, "updates": 5, "quorum": 4})
    by_deadline = len(accepted) if late else chosen
    assert len(choose(waiting, fewer, deadline_passed=late, lateness=lateness_under(fewer, 1))) == by_deadline


def test_updates_of_an_earlier_round_fill_no_quorum() -> None:
    rules = policy(buffer={"mode": "rounds", "updates": 5, "quorum": 2})
    waiting = [aggregate(version=0, accepted=4), aggregate(version=1, accepted=1, sequence=1)]
    assert choose(waiting, rules, deadline_passed=True, lateness=lateness_under(rules, 1)) == ()
    waiting.append(aggregate(version=1, accepted=1, sequence=2))
    assert len(choose(waiting, rules, deadline_passed=True, lateness=lateness_under(rules, 1))) == 3


# -- delays


def test_the_delay_is_the_largest_staleness_and_the_largest_lateness() -> None:
    rules = policy(staleness={"versions_max": 6})
    windows = [
        aggregate(version=7, accepted=3, staleness_max=4),
        aggregate(version=5, accepted=2, staleness_max=1, sequence=1),
        aggregate(version=1, accepted=0, staleness_max=0, sequence=2),
        aggregate(version=0, accepted=2, staleness_max=6, sequence=3),
    ]
    merged = MergedWindows.of(windows, lateness_under(rules, 7))
    assert merged.weights[-1] == 0, "it is dropped: its delay is nobody's"
    assert (merged.staleness_max, merged.late, merged.delay) == (4, 2, 6)
    never = policy(staleness={"versions_max": 6}, buffer={"late_windows": False})
    assert MergedWindows.of(windows[:2], lateness_under(never, 7)).delay == 4


# -- lots

SLOTS: dict[str, Any] = {"selection": {"kind": "slots", "slots": 4}, "buffer": {"seconds_max": 10.0}}


def selected(rules: Policy, device: str, base: int, turns: int = 0) -> bool:
    return is_selected(rules.selection, Candidate(TASK, device, base, model_sha(base), turns))


def timed(rules: Policy, *seconds: float) -> Site:
    """A partition whose barriers to version 1, 2, ... stand at those seconds."""
    site = Site(state_of(rules))
    for number, at in enumerate(seconds, start=1):
        site.fold(barrier(number, rules, timestamp_ms=NOW_MS + int(at * 1000)))
    return site


def outcome(site: Site, device: str, base: int, seconds: float) -> str:
    return site.fold(update(device, base=base, timestamp_ms=NOW_MS + int(seconds * 1000))).outcome


def test_who_was_not_selected_is_refused_and_uses_nothing_up() -> None:
    rules = policy(selection={"kind": "share", "share": 0.5})
    site, seen = timed(rules, 0.0), set[str]()
    for one in devices(12):
        verdict = site.fold(update(one, base=1, timestamp_ms=NOW_MS))
        chosen = selected(rules, one, 1)
        assert verdict.outcome == ("accepted" if chosen else "not_selected")
        assert (one in site.state.counted.get(1, ())) is chosen
        seen.add(verdict.outcome)
        if not chosen:
            assert verdict.because.text == f"{one} was not selected to answer version 1"
    assert seen == {"accepted", "not_selected"}


def test_everybody_may_answer_version_0() -> None:
    site = Site(state_of(policy(**SLOTS)))
    assert {outcome(site, one, 0, 0.0) for one in devices(9)} == {"accepted"}


def test_the_lot_is_the_bases_not_the_partitions() -> None:
    rules = policy(**SLOTS)
    site = timed(rules, 0, 1, 2, 3, 4)
    for one in devices(6):
        for base in (3, 4, 5):
            assert (outcome(site, one, base, 4.5) != "not_selected") is selected(rules, one, base)


def test_the_lot_is_drawn_after_the_base_and_before_the_duplicate() -> None:
    rules = policy(selection={"kind": "slots", "slots": 10_000})
    site = timed(rules, 0.0)
    one = next(one for one in devices(9) if not selected(rules, one, 1))
    other = replace(update(one, base=1, timestamp_ms=NOW_MS), base_sha256="0" * 64)
    assert site.fold(other).outcome == "unknown_base"
    assert [outcome(site, one, 1, 0.0), outcome(site, one, 1, 0.0)] == ["not_selected"] * 2


def test_where_too_few_come_more_are_asked_by_the_time_in_the_log() -> None:
    rules = policy(**SLOTS)
    for one in devices(12):
        turn = next(turn for turn in range(4) if selected(rules, one, 2, turn))
        site = timed(rules, 0, 100)
        for after_s in (-50.0, 0.0, 9.999, 10.0, 19.999, 20.0, 30.0):
            expected = "accepted" if max(0, int(after_s / 10.0)) >= turn else "not_selected"
            found = outcome(site, one, 2, 100 + after_s)
            assert found == expected
            if found == "accepted":
                break


def test_an_older_base_stands_since_its_own_barrier() -> None:
    rules = policy(**SLOTS)
    site = timed(rules, 0, 35, 36)
    assert [site.state.stands_since_ms(base) for base in range(4)] == [
        None, NOW_MS, NOW_MS + 35_000, NOW_MS + 36_000
    ]  # fmt: skip
    for one in devices(8):
        assert outcome(site, one, 1, 37.0) == "accepted", "it was the newest for three turns"


def test_once_there_is_a_newer_version_nobody_more_is_selected_for_the_older_one() -> None:
    rules = policy(**SLOTS)
    for one in devices(12):
        site = timed(rules, 0, 12, 13)
        turn = next(turn for turn in range(4) if selected(rules, one, 1, turn))
        found = outcome(site, one, 1, 500.0)
        assert (found != "not_selected") is (turn <= 1), (
            "it had one turn and a bit, whenever the answer comes"
        )


def test_the_oldest_base_that_is_remembered_is_no_way_around_the_lot() -> None:
    rules = policy(**SLOTS, staleness={"versions_max": 2, "seconds_max": 0.5})
    site = timed(rules, *(5.0 * number for number in range(1, 9)))
    oldest = min(site.state.models)
    assert (oldest, site.state.stands_since_ms(oldest)) == (6, None)
    for one in devices(12):
        assert (outcome(site, one, oldest, 40.0) != "not_selected") is selected(rules, one, oldest)


def test_a_newest_version_of_which_no_time_is_known_is_everybodys() -> None:
    rules = policy(**SLOTS)
    site = Site(state_of(rules))
    site.fold(barrier(3, rules, timestamp_ms=NOW_MS, floor=3))
    assert site.state.stands_since_ms(3) is None
    assert {outcome(site, one, 3, 0.0) for one in devices(9)} == {"accepted"}


def test_a_partition_that_skipped_a_version_knows_since_when_its_newest_stands() -> None:
    rules = policy(**SLOTS)
    site = timed(rules, 5)
    site.fold(barrier(7, rules, timestamp_ms=NOW_MS + 20_000))
    assert site.state.stands_since_ms(7) == NOW_MS + 20_000


def test_lots_need_times() -> None:
    with pytest.raises(UsageProblem, match=r"staleness\.seconds_max") as caught:
        policy(selection={"kind": "slots", "slots": 4}, staleness={"seconds_max": 0.0})
    assert caught.value.error_id == "FLV-2002"


@pytest.mark.parametrize("reason", [RejectionReason.ROUND_OVER, RejectionReason.NOT_SELECTED])
def test_both_say_what_to_do(reason: RejectionReason) -> None:
    assert "train" in reason.hint_for_devices
    assert reason.error_id in {"FLV-2122", "FLV-2123"}


# -- examples


@given(st.integers(1, WEIGHT_ONE), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1, WEIGHT_ONE))
def test_what_examples_leave_of_a_weight_is_at_least_one_and_never_more(
    weight: int, examples: int, most: int
) -> None:
    left = by_examples(weight, examples, most)
    assert 1 <= left <= weight
    assert by_examples(weight, most, most) == weight == by_examples(weight, 1 << 62, most)
    assert left <= by_examples(weight, min(examples, most) + 1, most)


def test_an_update_weighs_by_its_examples_and_a_boast_buys_the_bound() -> None:
    rules = policy(weights={"by": "examples", "examples_max": 100}, staleness={"kind": "constant"})
    site = site_of(rules)
    claims = dict(zip(devices(6), (50, 100, 1, 0, -7, 1 << 62), strict=True))
    weights = [
        site.fold(replace(update(one), num_examples=claimed)).weight for one, claimed in claims.items()
    ]
    assert weights == [32768, 65536, 655, 655, 655, 65536]
    assert site.state.window.weight_total == sum(weights)


def test_examples_come_on_top_of_staleness() -> None:
    rules = policy(weights={"by": "examples", "examples_max": 10}, staleness={"versions_max": 3})
    site = site_of(rules, 2)
    verdict = site.fold(replace(update(devices(1)[0], base=1), num_examples=5))
    assert verdict.weight == rules.staleness.weights[1] * 5 // 10
