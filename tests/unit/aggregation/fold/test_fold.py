"""The fold, record by record: offsets, windows, barriers, ticks, contributions, revocations."""

from __future__ import annotations

import numpy as np
import pytest

from aggregation.codecs import direction_of
from aggregation.errors import IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.events import Event, RejectedRecord, Revoke
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from aggregation.fold.transition import fold_into
from aggregation.reasons import Reason, because
from tests import factories
from tests.factories import (
    LAYOUT,
    TASK,
    Site,
    barrier,
    devices,
    policy,
    snapshot,
    state_of,
    tick,
    update,
    windows_tile,
)

REFUSED = RejectedRecord(RejectionReason.UNDECODABLE, because(Reason.NOT_SINGLE_OBJECT))


# Offsets


def test_a_lower_offset_was_folded_before_and_has_no_effects() -> None:
    site = Site(state_of(policy()))
    site.fold(update("d-1"))
    site.fold(update("d-2"))
    before = snapshot(site.state)
    assert fold_into(site.state, 0, update("d-1")) == ()
    assert fold_into(site.state, 1, update("d-9")) == ()
    assert snapshot(site.state) == before


@pytest.mark.parametrize(
    "event", [update("d-9"), REFUSED, barrier(1, policy()), tick(0), Revoke(TASK, "d-1", "", "lost")]
)
def test_a_gap_raises_and_leaves_the_state_unchanged(event: Event) -> None:
    site = Site(state_of(policy()))
    site.fold(update("d-1"))
    before = snapshot(site.state)
    with pytest.raises(IntegrityProblem, match="expected offset 1, got 2") as caught:
        fold_into(site.state, 2, event)
    assert caught.value.error_id == "FLV-3001"
    assert snapshot(site.state) == before


def test_a_barrier_whose_objects_were_not_loaded_raises_and_leaves_the_state_unchanged() -> None:
    site = Site(state_of(policy()))
    site.fold(update("d-1"))
    before = snapshot(site.state)
    for wrong in (
        barrier(1, policy(), policy=None),
        barrier(1, policy(), reference_sha256=factories.sha("some")),
        barrier(1, policy(), direction_of(np.ones(LAYOUT.parameters), LAYOUT), reference_sha256=""),
    ):
        with pytest.raises(ValueError, match="load the objects"):
            fold_into(site.state, 1, wrong)
        assert snapshot(site.state) == before


# When a window closes


def test_a_window_closes_when_it_holds_updates_max_accepted_updates() -> None:
    site = Site(state_of(policy(window={"updates_max": 3})))
    for name in devices(7):
        site.fold(update(name))
        site.fold(REFUSED)
    assert [(w.first_offset, w.next_offset, w.accepted) for w in site.closed] == [(0, 5, 3), (5, 11, 3)]
    assert windows_tile(site.closed)


def test_a_window_closes_when_it_spans_records_max_records_of_any_verdict() -> None:
    site = Site(state_of(policy(window={"updates_max": 3, "records_max": 4})))
    for _ in range(9):
        site.fold(REFUSED)
    assert [(w.first_offset, w.next_offset) for w in site.closed] == [(0, 4), (4, 8)]
    assert site.closed[0].sums is None
    assert site.closed[0].counts == {"undecodable": 4}


def test_replayed_control_records_cannot_keep_a_window_open_for_ever() -> None:
    """Regression: anybody can copy an old, validly signed barrier; those were not counted against the
    bound."""
    rules = policy(window={"updates_max": 3, "records_max": 4})
    site = Site(state_of(rules))
    events: list[Event] = [barrier(1, rules), tick(99), Revoke(TASK, "d-1", "", ""), barrier(1, rules)]
    for event in [*events, *[barrier(1, rules)] * 8]:
        site.fold(event)
    assert [(w.first_offset, w.next_offset) for w in site.closed] == [(0, 4), (4, 8), (8, 12)]
    assert windows_tile(site.closed)


def test_a_barrier_closes_the_window_under_the_old_version_and_policy() -> None:
    old, new = policy(), policy(buffer={"updates": 99})
    site = Site(state_of(old))
    site.fold(update("d-1"))
    site.fold(barrier(1, new))
    (window,) = site.closed
    assert (window.first_offset, window.next_offset, window.version) == (0, 2, 0)
    assert window.policy_sha256 == old.sha256
    assert (site.state.version, site.state.policy_sha256) == (1, new.sha256)
    assert site.state.window.first_offset == 2


def test_a_barrier_over_an_empty_window_closes_nothing() -> None:
    site = Site(state_of(policy()))
    site.fold(barrier(1, policy()))
    assert site.closed == []
    assert site.state.window.first_offset == 0


@pytest.mark.parametrize("version", [-1, 0, 1, 2])
def test_a_barrier_that_is_not_above_the_current_version_changes_nothing(version: int) -> None:
    site = Site(state_of(policy()))
    site.fold(barrier(2, policy()))
    site.fold(update("d-1", base=2))
    before = snapshot(site.state)
    verdict = site.fold(barrier(version, policy(buffer={"updates": 3}), floor=1, policy=None))
    assert verdict.outcome == "control"
    after = snapshot(site.state)
    assert after.pop("next_offset") == before.pop("next_offset") + 1
    assert after == before


def test_versions_may_be_skipped_and_the_floor_only_rises() -> None:
    site = Site(state_of(policy()))
    site.fold(barrier(5, policy(), floor=4))
    site.fold(barrier(6, policy(), floor=2))
    assert (site.state.version, site.state.floor, sorted(site.state.models)) == (6, 4, [5, 6])


def test_a_tick_closes_the_window_that_it_names_and_no_other() -> None:
    site = Site(state_of(policy()))
    site.fold(update("d-1"))
    site.fold(tick(7))
    assert site.closed == []
    site.fold(tick(0))
    assert [(w.first_offset, w.next_offset) for w in site.closed] == [(0, 3)]
    site.fold(tick(0))  # late, and twice
    site.fold(tick(3))  # the new window holds nothing yet
    assert len(site.closed) == 1


def test_the_last_update_of_a_full_window_belongs_to_it() -> None:
    site = Site(state_of(policy(window={"updates_max": 1})))
    site.fold(update("d-1"))
    assert site.closed[0].next_offset == 1
    assert site.state.next_offset == 1


# What is remembered


def test_contributions_are_forgotten_with_their_versions() -> None:
    rules = policy(staleness={"versions_max": 2})
    site = Site(state_of(rules))
    for version in range(6):
        if version:
            site.fold(barrier(version, rules))
        site.fold(update("d-1", base=version))
    assert sorted(site.state.counted) == [3, 4, 5]
    assert sorted(site.state.models) == [3, 4, 5]
    assert {v.outcome for v in site.verdicts} == {ACCEPTED, "control"}


def test_a_pruned_base_does_not_come_back_with_a_longer_policy() -> None:
    short, long = policy(staleness={"versions_max": 0}), policy(staleness={"versions_max": 10})
    site = Site(state_of(long))
    site.fold(update("d-1"))
    site.fold(barrier(1, short))
    site.fold(barrier(2, long))
    assert site.fold(update("d-1", base=0)).outcome == "unknown_base"


def test_a_device_contributes_once_for_each_base() -> None:
    site = Site(state_of(policy()))
    site.fold(update("d-1"))
    site.fold(barrier(1, policy()))
    outcomes = [site.fold(update("d-1", base=base, seed=9)).outcome for base in (0, 1, 1)]
    assert outcomes == ["duplicate", ACCEPTED, "duplicate"]


def test_an_anomalous_update_uses_up_its_contribution_and_enters_the_history_and_no_more() -> None:
    rules = policy(anomaly={"cosine_min": 1.0})
    site = Site(state_of(rules))
    site.fold(barrier(1, rules, direction_of(np.ones(LAYOUT.parameters), LAYOUT)))
    before = snapshot(site.state)
    assert site.fold(update("d-1", base=1)).outcome == "anomalous"
    after = snapshot(site.state)
    assert after["counted"] == {1: {"d-1"}}
    assert len(after["norms"]) == 1
    for name in ("counted", "norms", "next_offset", "window.counts"):
        before.pop(name)
        after.pop(name)
    assert after == before


def test_revocations_last_over_barriers() -> None:
    site = Site(state_of(policy()))
    site.fold(Revoke(TASK, "d-1", "ff00", "stolen"))
    site.fold(barrier(1, policy()))
    assert site.fold(update("d-1", base=1)).outcome == "revoked"
    assert site.fold(update("d-2", base=1, certificate_serial="ff00")).outcome == "revoked"
    assert site.fold(update("d-3", base=1)).outcome == ACCEPTED


def test_a_barrier_that_changes_the_fixed_point_unit_stops_the_partition_and_changes_nothing() -> None:
    site = Site(state_of(policy()))
    before = snapshot(site.state)
    with pytest.raises(IntegrityProblem) as caught:
        fold_into(site.state, 0, barrier(1, policy(fixed_point={"exponent": 24})))
    assert caught.value.error_id == "FLV-3006"
    assert snapshot(site.state) == before


def test_a_barrier_with_a_floor_above_its_own_version_still_welcomes_that_version() -> None:
    site = Site(state_of(policy()))
    fold_into(site.state, 0, barrier(3, policy(), floor=9))
    assert site.state.floor == 3
    assert site.state.oldest_base == 3


def test_a_partition_that_remembers_too_much_welcomes_its_oldest_base_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_state, "COUNTED_MAX", 3)
    site = Site(state_of(policy(staleness={"versions_max": 5})))
    for device in ("d-1", "d-2"):
        assert site.fold(update(device)).outcome == ACCEPTED
    site.fold(barrier(1, policy(staleness={"versions_max": 5})))
    for device in ("d-3", "d-4"):
        assert site.fold(update(device, base=1)).outcome == ACCEPTED
    assert site.fold(update("d-5", base=0)).outcome == "too_stale"
    assert site.fold(update("d-3", base=1)).outcome == "duplicate"
    assert site.fold(update("d-5", base=1)).outcome == ACCEPTED
