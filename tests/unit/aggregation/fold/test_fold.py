"""The fold: offsets, windows, barriers, ticks; exact sums; the same bits in any order and over any
restart."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import CodecName, direction_of
from aggregation.errors import IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.events import Barrier, Event, RejectedRecord, Revoke, Update, Verdict, WindowClosed
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from aggregation.fold.transition import fold_into
from aggregation.reasons import Reason, because
from schemas.windows import EncodedWindow, encode_window, restore_state, state_names
from tests import factories
from tests.factories import (
    LAYOUT,
    TASK,
    Site,
    barrier,
    devices,
    encoded,
    policy,
    snapshot,
    state_of,
    tick,
    update,
    windows_tile,
)

if TYPE_CHECKING:
    from aggregation.fold.state import PartitionState
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate

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


# The sums


def sums_of(window: WindowClosed) -> bytes:
    assert window.sums is not None
    return window.sums.tobytes()


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_any_order_of_the_same_updates_gives_the_same_bits(rng: random.Random, count: int) -> None:
    rules = policy(window={"updates_max": count}, updates={"norm_clip": 0.3}, anomaly={"enabled": False})
    codecs: list[CodecName] = [rng.choice(["int8", "float32"]) for _ in range(count)]
    bases = [rng.randrange(3) for _ in range(count)]
    updates = [update(name, seed=n, base=bases[n], codec=codecs[n]) for n, name in enumerate(devices(count))]
    results = []
    for _ in range(3):
        site = Site(state_of(rules))
        for version in (1, 2):
            site.fold(barrier(version, rules))
        for one in updates:
            assert site.fold(one).outcome == ACCEPTED
        (window,) = site.closed
        results.append((sums_of(window), window.weight_total, window.staleness_total, window.counts))
        rng.shuffle(updates)
    assert results[0] == results[1] == results[2]


def test_the_sums_are_the_weighted_clipped_deltas_in_fixed_point() -> None:
    rules = policy(window={"updates_max": 6}, updates={"norm_clip": 0.2}, fixed_point={"exponent": 40})
    site = Site(state_of(rules))
    site.fold(barrier(1, rules))
    expected = np.zeros(LAYOUT.parameters)
    for n, name in enumerate(devices(6)):
        tensors = encoded(factories.delta(n), "float32")
        site.fold(update(name, base=n % 2, codec="float32", tensors=tensors))
        values = factories.delta(n).astype(np.float64)
        expected += values * min(1.0, 0.2 / float(np.linalg.norm(values))) / np.sqrt(1 + (1 - n % 2))
    (window,) = site.closed
    assert window.sums is not None
    # weights are rounded to 1/65536
    assert window.sums / 2.0**40 == pytest.approx(expected, abs=1e-5)


def test_contributors_bind_order_weight_and_signature() -> None:
    def contributors(updates: list[Update]) -> str:
        site = Site(state_of(policy(window={"updates_max": 2})))
        for one in updates:
            site.fold(one)
        return site.closed[0].contributors_sha256

    first, second = update("d-1"), update("d-2")
    forged = update("d-2", signature=b"other")
    assert len({contributors(u) for u in ([first, second], [second, first], [first, forged])}) == 3


# Restarts


def scenario(seed: int, rules: list[Policy], length: int = 120) -> list[Event]:
    """A log of every kind of event, some of them good."""
    rng = random.Random(seed)
    version, events = 0, list[Event]()
    for n in range(length):
        name = f"d-{rng.randrange(30)}"
        match rng.randrange(12):
            case 0:
                version += rng.randint(0, 2)
                direction = direction_of(factories.delta(version).astype(np.float64), LAYOUT)
                floor = max(0, version - 3)
                events.append(barrier(version, rng.choice(rules), direction, floor=floor))
            case 1:
                events.append(tick(rng.randrange(n + 1)))
            case 2:
                events.append(REFUSED)
            case 3:
                events.append(Revoke(TASK, name, "", "lost") if rng.random() < 0.2 else REFUSED)
            case kind:
                codec: CodecName = "float32" if kind == 4 else "int8"
                base = max(0, version - rng.randrange(4))
                events.append(update(name, seed=n, base=base, codec=codec))
    return events


class Follower:
    """A worker's way through a log: fold, seal what closes, and restart from the last aggregate when told
    to."""

    def __init__(self, events: list[Event], rules: list[Policy]) -> None:
        self.events = events
        self.policies = {one.sha256: one for one in rules}
        self.references = {
            e.reference_sha256: e.reference for e in events if isinstance(e, Barrier) and e.reference
        }
        self.first = rules[0]
        self.state: PartitionState = state_of(self.first)
        self.encoded: dict[int, EncodedWindow] = {}
        self.verdicts: dict[int, Verdict] = {}

    def run(self, until: int) -> None:
        """Fold from the state's offset to ``until``."""
        for offset in range(self.state.next_offset, until):
            for effect in fold_into(self.state, offset, self.events[offset]):
                self._take(effect)
            self.state.validate()

    def _take(self, effect: Any) -> None:
        if isinstance(effect, Verdict):
            assert self.verdicts.setdefault(effect.offset, effect) == effect
            return
        encoded = encode_window(self.state, effect)
        known = self.encoded.setdefault(effect.sequence, encoded)
        assert known.payload == encoded.payload
        assert known.objects == encoded.objects

    def restart(self) -> None:
        """Lose the state; take up from the last aggregate."""
        if not self.encoded:
            self.state = state_of(self.first)
            return
        last: Aggregate = self.encoded[max(self.encoded)].aggregate
        data = self.encoded[last.sequence].objects[last.state_sha256]
        policy_sha256, reference_sha256, _ = state_names(data)
        self.state = restore_state(
            data,
            last,
            partitions=1,
            layout=LAYOUT,
            policy=self.policies[policy_sha256],
            reference=self.references.get(reference_sha256),
        )


POLICIES = [
    policy(window={"updates_max": 4, "records_max": 9}, staleness={"versions_max": 3}),
    policy(
        window={"updates_max": 2, "records_max": 5}, anomaly={"history_updates_min": 3, "history_updates": 5}
    ),
]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 120), max_size=6))
def test_any_restarts_give_the_same_aggregates_byte_for_byte(seed: int, crashes: list[int]) -> None:
    events = scenario(seed, POLICIES)
    straight, crashing = Follower(events, POLICIES), Follower(events, POLICIES)
    straight.run(len(events))
    for crash in crashes:
        crashing.run(crash)
        crashing.restart()
    crashing.run(len(events))
    assert {n: s.payload for n, s in crashing.encoded.items()} == {
        n: s.payload for n, s in straight.encoded.items()
    }
    assert {n: s.objects for n, s in crashing.encoded.items()} == {
        n: s.objects for n, s in straight.encoded.items()
    }
    assert crashing.verdicts == straight.verdicts
    assert snapshot(crashing.state) == snapshot(straight.state)


@pytest.mark.parametrize("seed", range(10))
def test_every_offset_has_one_verdict_and_windows_tile_the_log(seed: int) -> None:
    site = Site(state_of(POLICIES[0]))
    events = scenario(seed, POLICIES, 300)
    for event in events:
        site.fold(event)
    assert [verdict.offset for verdict in site.verdicts] == list(range(300))
    assert windows_tile(site.closed)
    assert sum(w.accepted for w in site.closed) + site.state.window.accepted == sum(
        v.outcome == ACCEPTED for v in site.verdicts
    )
    refused = {v.outcome for v in site.verdicts}
    assert {"duplicate", "undecodable", "control", ACCEPTED} <= refused


@pytest.mark.parametrize("seed", range(10))
def test_a_refused_record_leaves_the_state_as_it_was(seed: int) -> None:
    state = state_of(POLICIES[0])
    for offset, event in enumerate(scenario(seed, POLICIES, 200)):
        before = snapshot(state)
        effects = fold_into(state, offset, event)
        verdict = effects[0]
        assert isinstance(verdict, Verdict)
        if verdict.outcome in {ACCEPTED, "control", "anomalous"} or len(effects) > 1:
            continue
        after = snapshot(state)
        counts, counts_before = after.pop("window.counts"), before.pop("window.counts")
        assert counts == counts_before | {verdict.outcome: counts_before.get(verdict.outcome, 0) + 1}
        assert after.pop("next_offset") == before.pop("next_offset") + 1
        assert after == before


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
