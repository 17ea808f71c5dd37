"""Taking windows: each once, in sequence, whatever the framework loses or repeats; and where the next one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.topics import aggregates_topic
from stream_apps.merger.windows import Windows
from tests import factories
from tests.unit.stream_apps.merger.merger_parts import TASK, Logs, ManualClock, publish_window, small_task

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.server.aggregates import Aggregate
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
        self.windows = windows_of(self.context)

    def offer(self, *offsets: int) -> None:
        for offset in offsets:
            self.windows.offer(self.logs.records[TOPIC, SLOT[1]][offset], "eu")

    def waiting(self) -> list[int]:
        return [one.sequence for one in self.windows.pending.waiting()]


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


def test_the_next_merger_goes_on_at_the_first_window_that_no_version_holds(taken: Taken) -> None:
    taken.offer(0, 1, 2)
    taken.windows.forget_merged({**dict.fromkeys(taken.context.genesis.slots, 0), SLOT: 1})
    taken.windows.write_facts(7)
    late = windows_of(taken.context)
    late.resume_from_facts(7)
    assert late.next_offsets == {("eu", 0): 0, SLOT: 1, ("us", 0): 0}


def test_facts_say_where_the_next_window_will_stand_when_all_are_merged(taken: Taken) -> None:
    taken.offer(0, 1, 2)
    taken.windows.forget_merged({**dict.fromkeys(taken.context.genesis.slots, 0), SLOT: 3})
    taken.windows.write_facts(7)
    late = windows_of(taken.context)
    late.resume_from_facts(7)
    assert late.next_offsets[SLOT] == 3


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"aggregate_offsets": "none"},
        {"aggregate_offsets": {"eu": {"1": 4}, "gone": {"0": 3}}},
    ],
)
def test_advice_that_points_nowhere_is_not_followed(taken: Taken, facts: dict[str, object]) -> None:
    taken.context.store.put_facts(7, facts)
    taken.windows.resume_from_facts(7)
    assert set(taken.windows.next_offsets.values()) == {0}
