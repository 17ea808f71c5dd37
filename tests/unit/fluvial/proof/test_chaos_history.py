"""The fleet's attempts and the faults as one history: nothing is left out, and silence is not taken for an outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fluvial.proof.chaos.history import FaultRecord, count_publishes, write_history
from fluvial.proof.chaos.schedule import Fault
from fluvial.proof.chaos.watching import Tally
from producers.fleet.journal import Entry, Journal, attempts_path, read_attempts, read_journal

if TYPE_CHECKING:
    from pathlib import Path

FAULT = Fault(1, 3.0, "kill", "worker-eu-0", 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def attempt(journal: Journal, number: int) -> str:
    return journal.invoked(device="d-1", region="eu", behaviour="honest", update_id=f"u-{number}")


def entry(offset: int) -> Entry:
    return Entry(2.0, 1.0, "d-1", "eu", 0, offset, "honest", 3, f"u-{offset}")


def test_outcomes_are_counted_and_silence_is_unknown(path: Path) -> None:
    with Journal(path) as journal:
        ids = [attempt(journal, number) for number in range(5)]
        journal.answered(ids[0], "ok", partition=0, offset=7)
        journal.answered(ids[1], "fail", reason="too large")
        journal.answered(ids[2], "unknown", reason="nobody answers")
    assert count_publishes(path) == (5, 1, 1, 3)


def test_two_runs_of_a_fleet_do_not_share_ids(path: Path) -> None:
    for _ in range(2):
        with Journal(path) as journal:
            attempt(journal, 0)
    assert len({one.id for one in read_attempts(path)}) == 2


def test_a_line_that_a_kill_has_cut_off_is_no_line_and_the_next_one_is_whole(path: Path) -> None:
    with Journal(path) as journal:
        journal.acknowledged(entry(1))
        attempt(journal, 1)
    for file in (path, attempts_path(path)):
        file.write_bytes(file.read_bytes() + b'{"time": 1.0, "sen')
    assert [one.offset for one in read_journal(path)] == [1]
    with Journal(path) as journal:
        journal.acknowledged(entry(2))
        attempt(journal, 2)
    assert [one.offset for one in read_journal(path)] == [1, 2]
    assert [one.update_id for one in read_attempts(path)] == ["u-1", "u-2"]


def test_the_history_has_everything_in_the_order_of_time(path: Path, tmp_path: Path) -> None:
    with Journal(path) as journal:
        ids = [attempt(journal, number) for number in range(2)]
        journal.answered(ids[0], "ok", partition=1, offset=7)
    began = read_attempts(path)[0].time
    records = [
        FaultRecord(FAULT, began - 5.0, began - 4.0, ok=True, outcome="killed pid 1"),
        FaultRecord(FAULT, began - 3.0, began - 2.0, ok=False, outcome="it was gone"),
    ]
    target = tmp_path / "history.jsonl"
    write_history(target, path, records, began - 9.0)
    events = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(event["f"], event["type"]) for event in events] == [
        ("begin", "info"),
        ("kill", "invoke"),
        ("kill", "ok"),
        ("kill", "invoke"),
        ("kill", "fail"),
        ("publish", "invoke"),
        ("publish", "invoke"),
        ("publish", "ok"),
        ("publish", "unknown"),
    ]
    assert events[7] | {"time": 0} == {
        "time": 0,
        "type": "ok",
        "f": "publish",
        "process": "fleet",
        "id": ids[0],
        "device": "d-1",
        "region": "eu",
        "behaviour": "honest",
        "update_id": "u-0",
        "partition": 1,
        "offset": 7,
    }
    assert events[2]["outcome"] == "killed pid 1" and events[2]["target"] == "worker-eu-0"


def test_a_history_without_any_publish_is_written_too(path: Path, tmp_path: Path) -> None:
    write_history(tmp_path / "history.jsonl", path, [], 1.0)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    assert count_publishes(path) == (0, 0, 0, 0)


def test_the_tally_counts_what_grows_without_reading_it_twice(path: Path) -> None:
    tally = Tally(path)
    assert tally.look() == (0, 0)
    with Journal(path) as journal:
        first = attempt(journal, 1)
        assert tally.look() == (1, 0)
        journal.answered(first, "ok")
        journal.acknowledged(entry(1))
        attempt(journal, 2)
        assert tally.look() == (2, 1)
        assert tally.look() == (2, 1)
