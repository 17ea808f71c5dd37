"""Taking windows: each once, in sequence, whatever the framework loses or repeats; and where the next one goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import ConnectionProblem
from schemas.objects import facts_key
from schemas.topics import aggregates_topic
from stream_apps.merger.windows import Windows
from tests import factories
from tests.unit.stream_apps.merger.merger_parts import TASK, Logs, ManualClock, publish_window, small_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aggregation.server.aggregates import Aggregate
    from backends.log import LogRecord
    from stream_apps.process_context import ProcessContext

SLOT = ("eu", 1)
TOPIC = aggregates_topic(TASK, "eu")


class Taken:
    """A task, three windows of one partition in its log, and who takes them."""

    def __init__(self, folder: Path) -> None:
        self.logs, self.clock = Logs(), ManualClock()
        self.context = small_task(folder, logs=self.logs, clock=self.clock)
        self.published: list[Aggregate] = []
        for _ in range(3):
            after = self.published[-1] if self.published else None
            self.published.append(publish_window(self.context, self.logs, SLOT, after=after))
        self.values = [record.value or b"" for record in self.logs.records[TOPIC, SLOT[1]]]
        self.windows = windows_of(self.context)

    def offer(self, *offsets: int) -> None:
        for offset in offsets:
            self.windows.offer(self.logs.records[TOPIC, SLOT[1]][offset], "eu")

    def waiting(self) -> list[int]:
        return [one.sequence for one in self.windows.pending.waiting()]


def window_value(taken: Taken, sequence: int) -> bytes:
    """What stands in the log for a window, wherever it was put meanwhile."""
    return taken.values[sequence]


def windows_of(context: ProcessContext) -> Windows:
    return Windows(context, dict.fromkeys(context.genesis.slots, 0))


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "waiting"),
    [
        pytest.param((0, 1, 2), [0, 1, 2], id="in order"),
        pytest.param((2,), [0, 1, 2], id="those that were lost are read from the log"),
        pytest.param((0, 0, 1, 0), [0, 1], id="a record that comes again changes nothing"),
    ],
)
def test_every_window_is_taken_once_and_in_sequence(
    taken: Taken, offsets: tuple[int, ...], waiting: list[int]
) -> None:
    taken.offer(*offsets)
    assert taken.waiting() == waiting
    assert taken.windows.next_offsets[SLOT] == max(offsets) + 1


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        factories.device_signer("d-1").sign("ClientUpdate", factories.update_record("d-1")),
    ],
)
def test_what_is_no_window_is_passed_over_and_said(
    taken: Taken, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    taken.logs.append_now(TOPIC, junk, partition=SLOT[1])
    taken.offer(3)
    assert taken.waiting() == [0, 1, 2]
    assert taken.windows.next_offsets[SLOT] == 4
    assert f"ignored {TOPIC}[1]@3" in caplog.text


def test_the_wait_begins_with_the_first_updates_and_anew_when_the_head_has_moved(taken: Taken) -> None:
    nothing_waits_since = taken.windows.waiting_since_s
    assert nothing_waits_since is None
    taken.offer(0)
    began_s = taken.clock.now_s
    taken.clock.now_s += 5
    taken.offer(1)
    assert taken.windows.waiting_since_s == began_s
    taken.windows.forget_merged({**dict.fromkeys(taken.context.genesis.slots, 0), SLOT: 1})
    taken.windows.wait_anew()
    assert taken.windows.waiting_since_s == began_s + 5
    taken.windows.forget_merged({**dict.fromkeys(taken.context.genesis.slots, 0), SLOT: 2})
    taken.windows.wait_anew()
    assert taken.windows.waiting_since_s is None


def test_a_window_without_updates_lets_no_wait_begin(tmp_path: Path) -> None:
    logs = Logs()
    context = small_task(tmp_path, logs=logs)
    publish_window(context, logs, SLOT, accepted=0)
    windows = windows_of(context)
    windows.offer(logs.records[TOPIC, SLOT[1]][0], "eu")
    assert [one.accepted for one in windows.pending.waiting()] == [0]
    assert windows.waiting_since_s is None


def begun(context: ProcessContext, cursor: int) -> Windows:
    windows = windows_of(context)
    windows.begin_at({**dict.fromkeys(context.genesis.slots, 0), SLOT: cursor})
    return windows


def test_the_next_merger_goes_on_at_the_first_window_that_no_version_holds(taken: Taken) -> None:
    late = begun(taken.context, 1)
    assert late.next_offsets == {("eu", 0): 0, SLOT: 1, ("us", 0): 0}


def test_where_all_windows_are_merged_the_next_merger_waits_for_the_next_one(taken: Taken) -> None:
    assert begun(taken.context, 3).next_offsets[SLOT] == 3


def test_a_log_that_is_shorter_than_the_windows_that_were_merged_is_read_from_its_beginning(
    taken: Taken,
) -> None:
    assert begun(taken.context, 4).next_offsets[SLOT] == 0


FACTS = [
    b"",
    b"not JSON",
    b"[" * 100_000,
    b"[1, 2]",
    b'{"aggregate_offsets": "none"}',
    b'{"aggregate_offsets": {"eu": 5}}',
    b'{"aggregate_offsets": {"eu": {"1": 3}}, "created_at_ms": -4}',
    b'{"aggregate_offsets": {"eu": {"1": 1' + b"0" * 400 + b"}}}",
    b'{"aggregate_offsets": {"eu": {"one": -1}}, "created_at_ms": 1e400}',
    b'{"created_at_ms": true, "merger": null}',
    b'{"created_at_ms": 253402300800000}',
    b'{"created_at_ms": "soon"}',
]


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts[:60].decode())
def test_whatever_the_facts_of_a_version_say_no_window_is_passed_over(taken: Taken, facts: bytes) -> None:
    taken.context.store.store.put(facts_key(TASK, 7), facts)
    late = begun(taken.context, 1)
    for record in taken.logs.records[TOPIC, SLOT[1]][late.next_offsets[SLOT] :]:
        late.offer(record, "eu")
    assert [one.sequence for one in late.pending.waiting()] == [1, 2]
    assert taken.context.store.created_at_ms(7) is None


def test_facts_that_say_a_time_say_when_a_version_was_committed(taken: Taken) -> None:
    taken.windows.write_facts(7)
    assert taken.context.store.created_at_ms(7) == factories.NOW_MS


def test_a_window_that_stands_before_its_place_is_looked_for_once_a_later_one_comes(taken: Taken) -> None:
    """As where the topic was made anew, and what workers published since is all that it holds."""
    window = publish_window(taken.context, taken.logs, SLOT, after=taken.published[-1])
    late = begun(taken.context, 2)
    records = taken.logs.records[TOPIC, SLOT[1]]
    records[2:] = [replace(records[3], offset=2)]
    records[0] = replace(records[0], value=window_value(taken, 2))
    late.offer(records[2], "eu")
    assert [one.sequence for one in late.pending.waiting()] == [2, window.sequence]


def test_an_outage_while_reading_from_the_beginning_loses_no_window(
    taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_window(taken.context, taken.logs, SLOT, after=taken.published[-1])
    late = begun(taken.context, 2)
    records = taken.logs.records[TOPIC, SLOT[1]]
    records[2:] = [replace(records[3], offset=2)]
    records[0] = replace(records[0], value=window_value(taken, 2))
    read, outages = taken.logs.read, [ConnectionProblem("FLV-3100", "no broker answers")]

    def failing_once(topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        if outages and topic == TOPIC:
            raise outages.pop()
        return read(topic, partition, start, end)

    monkeypatch.setattr(taken.logs, "read", failing_once)
    monkeypatch.setattr(taken.clock, "sleep", lambda _seconds: None)
    late.offer(records[2], "eu")
    assert not outages
    assert [one.sequence for one in late.pending.waiting()] == [2, 3]
