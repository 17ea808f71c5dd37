"""What every selection keeps, and what each is by its formula."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
from aggregation.policy import SelectionPolicy
from aggregation.selection import SELECTIONS, Candidate, is_selected, selection_named, turns_after
from tests.factories import model_sha

DEVICES = 2000
RULES = {
    "all": SelectionPolicy(),
    "share": SelectionPolicy(kind="share", share=0.3),
    "slots": SelectionPolicy(kind="slots", slots=5),
    "cohorts": SelectionPolicy(kind="cohorts", share=0.1, cohorts={"old": 0.2, "new": 0.6}),
}
COHORTS = ("old", "new", "")
"""Of devices by their numbers, a third each."""


def candidate(number: int, version: int = 0) -> Candidate:
    cohort = COHORTS[number % 3]
    return Candidate("digits", f"device-{number:04d}", version, model_sha(version), cohort=cohort)


def chosen(rules: SelectionPolicy, version: int) -> set[int]:
    return {number for number in range(DEVICES) if is_selected(rules, candidate(number, version))}


def test_every_member_is_tried() -> None:
    assert RULES.keys() == SELECTIONS.keys()
    assert all(SELECTIONS[name].name == name for name in SELECTIONS)


@pytest.mark.parametrize("name", SELECTIONS)
def test_it_takes_about_the_part_that_it_says_in_every_version(name: str) -> None:
    part = {"all": 1.0, "share": 0.3, "slots": 0.2, "cohorts": 0.3}[name]
    for version in range(10):
        assert abs(len(chosen(RULES[name], version)) / DEVICES - part) < 0.05


@pytest.mark.parametrize("name", SELECTIONS)
def test_over_time_nobody_is_left_out(name: str) -> None:
    seen = set[int]()
    for version in range(60):
        seen |= chosen(RULES[name], version)
    assert len(seen) > 0.998 * DEVICES if name == "cohorts" else seen == set(range(DEVICES))


def test_shares_of_two_versions_have_little_to_do_with_each_other() -> None:
    one, other = chosen(RULES["share"], 1), chosen(RULES["share"], 2)
    assert abs(len(one & other) / DEVICES - 0.3 * 0.3) < 0.03


def test_a_larger_share_holds_the_smaller_one() -> None:
    assert chosen(RULES["share"], 3) < chosen(SelectionPolicy(kind="share", share=0.4), 3)


def test_in_slots_everybodys_turn_comes_once_in_so_many_versions() -> None:
    turns = [chosen(RULES["slots"], version) for version in range(5)]
    assert sorted(number for turn in turns for number in turn) == list(range(DEVICES))
    assert chosen(RULES["slots"], 5) == turns[0]


def of_cohort(taken: set[int], cohort: str) -> set[int]:
    return {number for number in taken if COHORTS[number % 3] == cohort}


@pytest.mark.parametrize("turns", [0, 1, 2, 70])
def test_of_each_cohort_a_share_of_its_own_is_drawn_as_a_share_of_all_is(turns: int) -> None:
    """The twin: every cohort as if the policy were its own, with ``kind = "share"``."""
    rules = RULES["cohorts"]
    for version in range(3):
        asked = [candidate(number, version)._replace(turns=turns) for number in range(600)]
        taken = {number for number, one in enumerate(asked) if is_selected(rules, one)}
        for cohort in COHORTS:
            own = SelectionPolicy(kind="share", share=rules.cohorts.get(cohort, rules.share))
            expected = {number for number, one in enumerate(asked) if is_selected(own, one)}
            assert of_cohort(taken, cohort) == of_cohort(expected, cohort)


def test_a_cohort_that_the_policy_does_not_name_is_as_none() -> None:
    one = candidate(2, 5)
    assert COHORTS[2] == ""
    for number in range(300):
        device = one._replace(device_id=f"d-{number}")
        nameless = is_selected(RULES["cohorts"], device)
        assert is_selected(RULES["cohorts"], device._replace(cohort="other")) is nameless


@pytest.mark.parametrize("turns", [0, 1, 64, 10**9])
def test_a_share_of_0_never_widens(turns: int) -> None:
    rules = SelectionPolicy(kind="cohorts", share=0.0, cohorts={"old": 0.0, "new": 1e-9})
    taken = {
        number for number in range(DEVICES) if is_selected(rules, candidate(number, 3)._replace(turns=turns))
    }
    assert taken == (of_cohort(set(range(DEVICES)), "new") if turns >= 64 else set())


@pytest.mark.parametrize("name", SELECTIONS)
def test_who_is_ever_selected_is_who_is_selected_after_very_many_turns(name: str) -> None:
    rules = (RULES[name], SelectionPolicy(kind=name, share=0.0, cohorts={"old": 0.0, "new": 0.5}))
    for one in rules if name == "cohorts" else rules[:1]:
        for number in range(30):
            asked = candidate(number, 3)._replace(turns=10**6)
            assert selection_named(name).selects_ever(one, asked.cohort) is is_selected(one, asked)


@pytest.mark.parametrize("name", SELECTIONS)
def test_only_who_asks_for_the_cohort_goes_by_it(name: str) -> None:
    one = {number: candidate(number, 3) for number in range(300)}
    by_cohort = any(
        is_selected(RULES[name], asked._replace(cohort="new")) != is_selected(RULES[name], asked)
        for asked in one.values()
    )
    assert by_cohort is selection_named(name).asks_cohort


@given(st.floats(1e-6, 1.0), st.integers(0, 1 << 40))
def test_a_share_is_exactly_that_part_of_all_lots(share: float, number: int) -> None:
    one = candidate(0, 7)._replace(device_id=str(number))
    text = b"fluvial/lot/v1\0" + one.model_sha256.encode() + b"\0" + one.device_id.encode()
    lot = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    expected = lot < int(Fraction(share) * 2**64)
    assert is_selected(SelectionPolicy(kind="share", share=share), one) is expected


def test_slots_are_of_a_task_and_a_device() -> None:
    text = b"fluvial/slot/v1\0" + b"digits" + b"\0" + "gerät".encode()
    slot = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % 7
    for version in range(14):
        one = Candidate("digits", "gerät", version, model_sha(version))
        assert is_selected(SelectionPolicy(kind="slots", slots=7), one) is (version % 7 == slot)


def test_a_share_of_all_is_everybody() -> None:
    assert len(chosen(SelectionPolicy(kind="share", share=1.0), 4)) == DEVICES


@pytest.mark.parametrize("name", SELECTIONS)
def test_with_every_turn_it_widens_until_it_is_everybody(name: str) -> None:
    rules, version = RULES[name], 3
    taken = [
        {
            number
            for number in range(300)
            if is_selected(rules, candidate(number, version)._replace(turns=turns))
        }
        for turns in (0, 1, 2, 3, 5, 64, 10**9)
    ]
    assert all(one <= other for one, other in pairwise(taken))
    assert len(taken[4]) == 300


def test_a_turn_doubles_a_share_and_admits_one_more_slot() -> None:
    turned = {
        number
        for number in range(DEVICES)
        if is_selected(RULES["share"], candidate(number, 3)._replace(turns=1))
    }
    assert turned == chosen(SelectionPolicy(kind="share", share=0.6), 3)
    turned = {
        number
        for number in range(DEVICES)
        if is_selected(RULES["slots"], candidate(number, 3)._replace(turns=1))
    }
    assert turned == chosen(RULES["slots"], 3) | chosen(RULES["slots"], 2)


def test_turns_are_whole_deadlines() -> None:
    assert [turns_after(seconds, 10.0) for seconds in (-25.0, 0.0, 9.999, 10.0, 29.9)] == [0, 0, 0, 1, 2]


def test_an_unknown_selection_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match="all, share, slots, cohorts"):
        selection_named("lottery")
