"""Lots by cohort in the fold: the certificate says who is of which, and nobody's word does."""

from __future__ import annotations

from typing import Any

import pytest

from aggregation.errors import UsageProblem
from aggregation.fold.events import Update
from aggregation.policy import Policy
from aggregation.reasons import Reason
from aggregation.selection import Candidate, is_selected
from schemas.certificates import Role
from schemas.records import decode_record
from tests import factories
from tests.factories import NOW_MS, TASK, Site, barrier, devices, model_sha, spiffe, state_of, update

SHARES: dict[str, Any] = {"kind": "cohorts", "share": 0.2, "cohorts": {"old": 0.5, "new": 0.9, "away": 0.0}}
NAMES = ("old", "new", "away", "elsewhere", "")


def rules(**sections: Any) -> Policy:
    return factories.policy(
        format="fluvial/policy/v6", **{"selection": SHARES, "buffer": {"seconds_max": 10.0}} | sections
    )


def site_of(policy: Policy) -> Site:
    site = Site(state_of(policy))
    site.fold(barrier(1, policy, timestamp_ms=NOW_MS))
    return site


@pytest.mark.parametrize("cohort", NAMES)
@pytest.mark.parametrize("after_s", [0.0, 10.0, 25.0, 100.0])
def test_a_device_is_drawn_by_the_share_of_its_cohort(cohort: str, after_s: float) -> None:
    policy = rules()
    site, seen = site_of(policy), set[bool]()
    for one in devices(40):
        verdict = site.fold(
            update(one, base=1, timestamp_ms=NOW_MS + int(after_s * 1000), certified_cohort=cohort)
        )
        asked = Candidate(TASK, one, 1, model_sha(1), int(after_s / 10.0), cohort)
        chosen = is_selected(policy.selection, asked)
        assert verdict.outcome == ("accepted" if chosen else "not_selected")
        assert (one in site.state.counted.get(1, ())) is chosen
        seen.add(chosen)
    if cohort == "away":
        assert seen == {False}
    elif after_s == 100.0:
        assert seen == {True}


def test_everybody_may_answer_version_0() -> None:
    site = Site(state_of(rules()))
    assert {site.fold(update(one, certified_cohort="away")).outcome for one in devices(9)} == {"accepted"}


def test_what_a_device_says_of_itself_counts_for_nothing() -> None:
    site = site_of(rules(selection=SHARES | {"cohorts": {"7": 0.0}, "share": 1.0}))
    one, other = devices(2)
    assert site.fold(update(one, base=1, timestamp_ms=NOW_MS, cohort=7)).outcome == "accepted"
    assert (
        site.fold(update(other, base=1, timestamp_ms=NOW_MS, certified_cohort="7")).outcome == "not_selected"
    )


URIS = (spiffe("eu", Role.DEVICE, "d-1"), "urn:fluvial:cohort:old")
VALUE = factories.update_bytes("d-1", by=factories.device_signer("d-1", uris=URIS))


def test_under_a_policy_of_v6_the_event_has_the_certificates_cohort() -> None:
    event = decode_record(VALUE, NOW_MS, factories.trust("eu"), rules())
    assert isinstance(event, Update) and event.certified_cohort == "old"
    plain = decode_record(factories.update_bytes("d-1"), NOW_MS, factories.trust("eu"), rules())
    assert isinstance(plain, Update) and plain.certified_cohort == ""


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_to_an_older_policy_such_a_certificate_is_none(number: int) -> None:
    older, trust = factories.policy(format=f"fluvial/policy/v{number}"), factories.trust("eu")
    for policy, refused in ((older, True), (rules(), False), (older, True)):  # whoever asked first
        event = decode_record(VALUE, NOW_MS, trust, policy)
        assert isinstance(event, Update) is not refused
        if refused:
            assert event.because.reason is Reason.NOT_ONE_NAME  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("selection", "key"),
    [
        ({"kind": "cohorts", "share": 0.0}, "selection.share"),
        ({"kind": "cohorts", "share": 0.0, "cohorts": {"old": 0.0}}, "selection.share"),
        ({"kind": "cohorts", "cohorts": {"Old": 0.5}}, "selection.cohorts"),
        ({"kind": "cohorts", "cohorts": {"old": 1.5}}, "selection.cohorts.old"),
        ({"kind": "share", "cohorts": {"old": 0.5}}, "selection.cohorts"),
        ({"kind": "cohorts", "slots": 3}, "selection.slots"),
    ],
)
def test_a_policy_that_selects_nobody_or_means_nothing_is_refused(
    selection: dict[str, Any], key: str
) -> None:
    with pytest.raises(UsageProblem, match=key.replace(".", r"\.")) as caught:
        rules(selection=selection)
    assert caught.value.error_id == "FLV-2002"


# -- a cohort's part of a window


def capped(**sections: Any) -> Policy:
    everybody = {"selection": {"kind": "all"}, "shares": {"cohort_window_max": 2}}
    return rules(**everybody | {"window": {"updates_max": 8, "records_max": 40}} | sections)


@pytest.mark.parametrize("per_version", [0, 1])
def test_of_one_cohort_so_many_updates_count_in_a_window(per_version: int) -> None:
    shares = {"cohort_window_max": 2, "per_version": per_version, "saved_max": 1}
    site, ones = Site(state_of(capped(shares=shares))), devices(12)
    first = [site.fold(update(one, certified_cohort="old")) for one in ones[:3]]
    assert [one.outcome for one in first] == ["accepted", "accepted", "over_share"]
    refused = first[2].because
    assert (refused.reason, refused.values) == (Reason.COHORT_OVER_SHARE, ("old", 0, 2))
    assert ones[2] not in site.state.counted.get(0, ()), "it used nothing up"
    assert ones[2] not in dict(site.state.shares)
    assert site.fold(update(ones[3], certified_cohort="new")).outcome == "accepted"
    nameless = [site.fold(update(one)).outcome for one in ones[4:9]]
    assert nameless == ["accepted"] * 5, "who is of no cohort is not capped"
    assert site.state.window.accepted == 0, "the window is full, and the next one open"
    assert site.fold(update(ones[2], certified_cohort="old")).outcome == "accepted"


def test_a_window_that_closes_for_another_reason_begins_anew_too() -> None:
    policy = capped()
    site, ones = Site(state_of(policy)), devices(4)
    for one in ones[:2]:
        site.fold(update(one, certified_cohort="old"))
    assert site.fold(update(ones[2], certified_cohort="old")).outcome == "over_share"
    site.fold(barrier(1, policy, timestamp_ms=NOW_MS))
    assert site.fold(update(ones[2], base=1, certified_cohort="old")).outcome == "accepted"


def test_the_cap_is_behind_a_devices_own_share_and_before_the_form_of_what_it_sent() -> None:
    shares = {"cohort_window_max": 1, "per_version": 1, "saved_max": 1}
    site, (one, other) = Site(state_of(capped(shares=shares))), devices(2)
    site.fold(update(one, certified_cohort="old"))
    site.fold(barrier(1, capped(shares=shares), timestamp_ms=NOW_MS))
    assert site.fold(update(one, base=1, certified_cohort="old", timestamp_ms=NOW_MS)).outcome == "accepted"
    late = site.fold(update(one, base=0, seed=3, certified_cohort="old", timestamp_ms=NOW_MS))
    assert late.outcome == "duplicate"
    odd = update(other, base=1, certified_cohort="old", names=("a",), timestamp_ms=NOW_MS)
    assert site.fold(odd).because.reason is Reason.COHORT_OVER_SHARE


def test_to_older_policies_no_cohort_is_capped() -> None:
    older = factories.policy(format="fluvial/policy/v5")
    assert older.shares.cohort_window_max == 0
    site = Site(state_of(older))
    assert {site.fold(update(one, certified_cohort="old")).outcome for one in devices(4)} == {"accepted"}
