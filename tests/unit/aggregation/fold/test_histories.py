"""Random histories of a partition: the same bytes over any restart, a verdict an offset, no trace of refusals."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import CodecName, direction_of
from aggregation.fold.events import Barrier, Event, Revoke, Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.transition import fold_into
from schemas.windows import EncodedWindow, encode_window, restore_state, state_names
from tests import factories
from tests.factories import (
    LAYOUT,
    TASK,
    Site,
    barrier,
    policy,
    snapshot,
    state_of,
    tick,
    update,
    windows_tile,
)
from tests.unit.aggregation.fold.test_fold import REFUSED

if TYPE_CHECKING:
    from aggregation.fold.state import PartitionState
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate


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
