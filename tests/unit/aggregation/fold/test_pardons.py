"""An operator lifts a quarantine: what ends with it, what stays, and where it changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aggregation.fold.events import Pardon
from aggregation.policy import Policy
from aggregation.reasons import Reason
from schemas import avro
from schemas.snapshots import encode_state
from tests.factories import (
    REGION,
    TASK,
    Site,
    barrier,
    delta,
    devices,
    encoded,
    operator_signer,
    pardon_bytes,
    policy,
    snapshot,
    state_of,
    update,
    update_bytes,
)

NEWEST = "fluvial/policy/v5"
ZEROS = encoded(np.zeros_like(delta(0)))
ONE, OTHER, THIRD = devices(3)


def strict(format_name: str = NEWEST, **sections: Any) -> Policy:
    """One anomalous update is enough, for nine versions."""
    defence = {"quarantine_refusals": 1, "quarantine_versions": 9}
    return policy(format=format_name, defence=defence, **sections)


def held(*names: str, rules: Policy | None = None) -> Site:
    """A partition at version 1 with these devices in quarantine."""
    rules = rules or strict()
    site = Site(state_of(rules))
    for name in names:
        assert site.fold(update(name, tensors=ZEROS)).outcome == "anomalous"
    site.fold(barrier(1, rules))
    return site


def pardon(device: str, until: int = 9, **changed: Any) -> Pardon:
    return replace(Pardon(TASK, REGION, device, until, "its data is mended"), **changed)


def test_the_quarantine_of_one_device_ends_where_the_pardon_stands() -> None:
    site = held(ONE, OTHER)
    assert site.fold(update(ONE, base=1)).outcome == "quarantined"
    verdict = site.fold(pardon(ONE))
    assert (verdict.outcome, verdict.because.reason) == ("control", Reason.PARDON)
    assert verdict.because.values == (ONE, 9, "its data is mended")
    assert verdict.because.text == f"the quarantine of {ONE} until version 9 ends here: its data is mended"
    assert site.fold(update(ONE, base=1)).outcome == "accepted"
    assert site.fold(update(OTHER, base=1)).outcome == "quarantined"


def test_what_was_scored_is_forgotten_and_what_it_had_stays() -> None:
    rules = policy(
        format=NEWEST,
        defence={"quarantine_refusals": 2, "quarantine_versions": 9},
        shares={"per_version": 1, "saved_max": 3},
    )
    site = Site(state_of(rules))
    assert site.fold(update(ONE)).outcome == "accepted"
    for version in (1, 2):
        site.fold(barrier(version, rules))
        assert site.fold(update(ONE, base=version, tensors=ZEROS)).outcome == "anomalous"
    (before,) = [share for name, share in site.state.shares if name == ONE]
    said = (before.version, before.tokens, before.accepted)
    assert site.fold(pardon(ONE, 11)).because.reason is Reason.PARDON
    (after,) = [share for name, share in site.state.shares if name == ONE]
    assert (after.version, after.tokens, after.accepted, after.refused, after.scored) == (*said, 0, 0)
    assert site.fold(update(ONE, base=2)).outcome == "duplicate"
    site.fold(barrier(3, rules))
    assert site.fold(update(ONE, base=3, tensors=ZEROS)).outcome == "anomalous"
    assert site.state.shares.quarantined == {}, "its first anomalous one since: two bring it into quarantine"
    site.fold(barrier(4, rules))
    assert site.fold(update(ONE, base=4, tensors=ZEROS)).outcome == "anomalous"
    assert site.state.shares.quarantined == {ONE: 13}


@pytest.mark.parametrize("device", [OTHER, THIRD, "", "nobody knows it", "x" * 1000])
def test_of_a_device_that_is_in_no_quarantine_it_changes_nothing_and_says_so(device: str) -> None:
    site = held(ONE)
    assert site.fold(update(OTHER, base=1)).outcome == "accepted"
    before = snapshot(site.state)
    verdict = site.fold(pardon(device))
    assert (verdict.outcome, verdict.because.reason) == ("control", Reason.PARDON_OF_NOTHING)
    assert verdict.because.text.startswith(f"{device} is in no quarantine until version 9 here")
    assert_only_the_offset(before, site)


def test_a_second_one_finds_nothing_to_lift() -> None:
    site = held(ONE)
    reasons = [site.fold(pardon(ONE)).because.reason for _ in range(3)]
    assert reasons == [Reason.PARDON, Reason.PARDON_OF_NOTHING, Reason.PARDON_OF_NOTHING]


def test_a_quarantine_that_ended_by_itself_is_none() -> None:
    site, rules = held(ONE), strict()
    for version in range(2, 10):
        site.fold(barrier(version, rules))
    assert site.fold(pardon(ONE)).because.reason is Reason.PARDON_OF_NOTHING


def test_a_copy_of_an_old_pardon_lifts_no_later_quarantine() -> None:
    """Anybody may write an operator's record into the log again."""
    site, rules, copied = held(ONE), strict(), pardon_bytes(ONE, 9)
    assert site.append(copied).because.reason is Reason.PARDON
    assert site.fold(update(ONE, base=1, tensors=ZEROS)).outcome == "anomalous"
    site.fold(barrier(2, rules))
    assert site.append(copied).because.reason is Reason.PARDON_OF_NOTHING
    assert site.fold(update(ONE, base=2)).outcome == "quarantined"
    assert site.append(pardon_bytes(ONE, 10)).because.reason is Reason.PARDON


@pytest.mark.parametrize("until", [8, 10, 0, -9, 1 << 62])
def test_one_that_names_another_end_lifts_nothing(until: int) -> None:
    site = held(ONE)
    before = snapshot(site.state)
    assert site.fold(pardon(ONE, until)).because.reason is Reason.PARDON_OF_NOTHING
    assert_only_the_offset(before, site)


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"task": "fashion"}, "wrong_task"),
        ({"region": "us"}, "wrong_region"),
        ({"signer": "certificate:ab12"}, "revoked"),
    ],
)
def test_one_for_elsewhere_or_of_a_revoked_operator_lifts_nothing(
    changed: dict[str, Any], outcome: str
) -> None:
    site = held(ONE)
    site.state.revoked.add("certificate:ab12")
    before = snapshot(site.state)
    assert site.fold(pardon(ONE, **changed)).outcome == outcome
    assert_only_the_offset(before, site)
    assert site.fold(update(ONE, base=1)).outcome == "quarantined"


@pytest.mark.parametrize("number", [3, 4])
def test_a_policy_before_v5_knows_no_pardon(number: int) -> None:
    site = held(ONE, rules=strict(f"fluvial/policy/v{number}"))
    assert site.append(pardon_bytes(ONE, 9)).outcome == "unknown_schema"
    assert site.fold(update(ONE, base=1)).outcome == "quarantined"


def test_the_bytes_of_an_operator_are_such_an_event() -> None:
    site = held(ONE)
    verdict = site.append(pardon_bytes(ONE, 9, by=operator_signer("op-2"), reason="r" * 5000))
    assert verdict.because.reason is Reason.PARDON
    assert site.append(update_bytes(ONE, base=1)).outcome == "accepted"


def test_it_closes_a_window_that_is_full_of_records() -> None:
    site = held(ONE, rules=strict(window={"updates_max": 3, "records_max": 3}))
    closed = len(site.closed)
    site.fold(pardon(THIRD))
    site.fold(pardon(THIRD))
    assert avro.decode(encode_state(site.state))[1]["quarantined"] == [{"device_id": ONE, "until": 9}]
    site.fold(pardon(ONE))
    assert len(site.closed) == closed + 1
    assert avro.decode(encode_state(site.state))[1]["quarantined"] == []


def assert_only_the_offset(before: dict[str, Any], site: Site) -> None:
    """The state is as it was, but for the offset and the window's counts."""
    after = snapshot(site.state)
    passed = {"next_offset", "window.counts"}
    assert {name for name, value in after.items() if value != before[name]} <= passed
    assert after["next_offset"] == before["next_offset"] + 1
