"""Stalled means that nobody works, however long work takes; a dead end is told as soon as it is certain."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aggregation.fold.events import Verdict
from backends.observer import Observer
from fluvial.reading.progress import RunFacts
from fluvial.session.limits import DEAD_END_S, LONG_S, STALL_S
from fluvial.session.patience import DeadEnd, Patience
from producers.fleet import activity as fleet_activity
from producers.fleet.activity import Activity, ActivityFile, activity_path, read_activity
from stream_apps.evaluator.limits import EVALUATION_S_MAX

if TYPE_CHECKING:
    from pathlib import Path


class World:
    """A run, its clock, and what its fleet says of itself."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self.journal = folder / "journal.jsonl"
        self.facts = RunFacts()
        self.patience = Patience(self.facts, self.journal, now=lambda: self.now_s)
        self.offset = 0
        self.patience.look()

    def fleet(self, *, at_work: int = 0, training: str = "", version: int = 0, **changed: Any) -> None:
        now = time.time()
        said = Activity(
            time=changed.get("time", now),
            devices=3,
            at_work=at_work,
            training=training,
            since=changed.get("since", now),
            version=version,
            failing=changed.get("failing", 0),
        )
        activity_path(self.journal).write_bytes(msgspec.json.encode(said))

    def evaluated(self, version: int) -> None:
        self.facts.add_evaluation({"kind": "evaluation", "version": version, "loss": 0.1})

    def committed(self, version: int, accepted: int) -> None:
        self.facts.add_evaluation({"kind": "version", "version": version, "accepted": accepted})

    def judged(self, outcome: str, base: int = 0, count: int = 1) -> None:
        for _ in range(count):
            verdict = Verdict(self.offset, outcome, device_id="d", base_version=base)
            self.facts.add_verdict("eu", 0, verdict, 1_000)
            self.offset += 1

    def passes(self, seconds: float, every_s: float = 5.0) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += min(every_s, end_s - self.now_s)
            self.patience.look()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nobody_at_work_for_long_is_a_stall_and_shorter_is_none(world: World) -> None:
    world.fleet()
    world.passes(STALL_S)
    assert not world.patience.stalled
    world.passes(1.0)
    assert world.patience.stalled


def test_a_device_that_trains_is_no_stall_however_long(world: World) -> None:
    world.fleet(at_work=3, training="d-0001", since=time.time() - 400)
    world.passes(20 * STALL_S, every_s=100.0)
    assert not world.patience.stalled
    assert "the training of d-0001 (400 s so far, 2 more to come)" in world.patience.long_work()
    world.fleet()
    world.passes(STALL_S + 10)
    assert world.patience.stalled


def test_a_fleet_that_has_ended_or_hangs_does_not_work(world: World) -> None:
    world.fleet(at_work=3, training="d-0001", time=time.time() - fleet_activity.FRESH_S - 5)
    world.passes(STALL_S + 10)
    assert world.patience.stalled
    assert world.patience.long_work() == []


@pytest.mark.parametrize("work", ["evaluated", "committed", "judged"])
def test_verdicts_versions_and_evaluations_are_work(world: World, work: str) -> None:
    for number in range(4):
        world.passes(STALL_S * 0.75)
        if work == "judged":
            world.judged("duplicate")
        elif work == "evaluated":
            world.evaluated(number)
        else:
            world.committed(number, 2)
        world.patience.look()
        assert not world.patience.stalled


def test_an_evaluator_that_is_behind_works_for_a_bounded_time(world: World) -> None:
    world.committed(1, 3)
    world.passes(LONG_S + 1)
    assert world.patience.long_work() == [f"the evaluation of version 1 ({LONG_S + 1:.0f} s so far)"]
    world.passes(EVALUATION_S_MAX)
    assert not world.patience.stalled
    world.passes(4 * EVALUATION_S_MAX, every_s=60.0)
    assert world.patience.stalled


def at_a_dead_end(world: World) -> None:
    world.evaluated(0)
    world.judged("accepted", 0, 3)
    world.committed(1, 3)
    world.evaluated(1)
    world.judged("anomalous", 1, 3)
    world.fleet(version=1)
    world.patience.look()


def test_all_refused_and_nobody_at_work_is_a_dead_end_with_what_to_do(world: World) -> None:
    at_a_dead_end(world)
    assert world.patience.dead_end() is None
    world.passes(DEAD_END_S)
    end = world.patience.dead_end()
    assert end == DeadEnd(1, {"anomalous": 3}, 1.0, 0)
    problem = end.problem("mine")
    assert problem.error_id == "FLV-6311"
    assert (
        "no version after 1 can be made: all 3 updates since then are refused, 3 as anomalous"
        in problem.message
    )
    assert "since 1970-01-01 00:00:01 UTC" in problem.where
    assert "[defence]" in problem.hint
    assert "fluvial verdicts --task mine" in problem.hint


def trains(world: World) -> None:
    world.fleet(version=1, at_work=1, training="d-0002")


def accepted_waits(world: World) -> None:
    world.judged("accepted", 1)


def evaluation_is_behind(world: World) -> None:
    world.judged("accepted", 1)
    world.committed(2, 1)


def knows_no_newer_version(world: World) -> None:
    world.fleet(version=0)


def has_ended(world: World) -> None:
    activity_path(world.journal).unlink()


def a_verdict_is_missing(world: World) -> None:
    entry = {"region": "eu", "partition": 0, "offset": 99, "device": "d", "behaviour": "honest"}
    world.journal.write_text(json.dumps(entry | {"base_version": 1, "update_id": "u"}) + "\n")


def a_version_record_is_lost(world: World) -> None:
    world.facts.committed.clear()


@pytest.mark.parametrize(
    "still",
    [
        trains,
        accepted_waits,
        evaluation_is_behind,
        knows_no_newer_version,
        has_ended,
        a_verdict_is_missing,
        a_version_record_is_lost,
    ],
)
def test_what_can_still_come_to_something_is_no_dead_end(world: World, still: Any) -> None:
    at_a_dead_end(world)
    still(world)
    world.passes(3 * DEAD_END_S)
    assert world.patience.dead_end() is None


def test_devices_that_fail_and_others_that_are_refused_are_a_dead_end(world: World) -> None:
    at_a_dead_end(world)
    world.fleet(version=1, failing=2)
    world.passes(DEAD_END_S)
    end = world.patience.dead_end()
    assert end is not None
    assert "the rounds of 2 devices fail" in end.problem("mine").message


def test_a_fleet_says_what_it_does_and_its_loop_lives_while_somebody_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_activity, "WRITE_EVERY_S", 0.01)
    journal, beats = tmp_path / "journal.jsonl", []

    class Counting(Observer):
        def beat(self) -> None:
            beats.append(1)

    assert read_activity(journal) is None
    with ActivityFile(journal, 5, Counting()) as file:
        file.at_work, file.version = 2, 7
        file.trains("d-0003")
        _until(
            lambda: bool(beats) and (said := read_activity(journal)) is not None and said.training == "d-0003"
        )
        said = read_activity(journal)
        assert said is not None and said.works
        assert (said.devices, said.at_work, said.version) == (5, 2, 7)
        file.trains("")
        _until(lambda: (said := read_activity(journal)) is not None and not said.training)
    last = read_activity(journal)
    assert last is not None and not last.works


def _until(holds: Any) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
