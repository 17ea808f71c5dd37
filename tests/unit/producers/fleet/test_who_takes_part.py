"""A fleet's devices ask the task file whether they may take part: who may not is counted, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.task import load_task
from producers.fleet.behaviours import Behaviour
from producers.fleet.rounds import Rounds
from producers.fleet.summary import FleetSummary
from producers.sdk import eligibility
from tests.unit.producers.fleet.test_failed_rounds import HEAD
from tests.unit.producers.fleet.test_fleet_population import member

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from learning import Task


def task_with(folder: Path, can_run: str) -> Task:
    path = folder / "mine.py"
    path.write_text(HEAD.replace("BREAK", "pass").replace("BROKEN", "False") + can_run)
    return load_task(str(path))


def rounds(can_run: Callable[[Any], object] | None, shards: list[Any]) -> Rounds:
    never = cast("Any", None)
    return Rounds(
        [member(index) for index in range(len(shards))],
        never,
        shards,
        layout=never,
        codec="int8",
        train_config=never,
        message_bytes_max=1,
        now_ms=lambda: 0,
        on_failure=lambda *_: None,
        can_run=can_run,
    )


def test_a_task_file_says_of_a_devices_examples_whether_it_may(tmp_path: Path) -> None:
    task = task_with(
        tmp_path, "\ndef can_run(data):\n    return 'too few rows' if len(data) < 100 else True\n"
    )
    assert task.can_run is not None
    train = task.data().train
    assert task.can_run(train) is True
    assert task.can_run(Examples(train.x[:5], train.y[:5])) == "too few rows"
    assert task_with(tmp_path, "").can_run is None


def test_what_the_question_raises_is_shown_at_its_line(tmp_path: Path) -> None:
    task = task_with(tmp_path, "\ndef can_run(data):\n    raise OSError('no sensor')\n")
    assert task.can_run is not None
    with pytest.raises(UsageProblem, match="no sensor") as caught:
        task.can_run(task.data().train)
    assert caught.value.error_id == "FLV-2513"
    assert "mine.py" in caught.value.where and "raise OSError" in caught.value.where


def test_who_may_not_is_counted_and_not_asked_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def can_run(shard: int) -> object:
        asked.append(shard)
        return f"battery at {shard} %" if shard < 50 else True

    work = rounds(can_run, [10, 20, 90])
    for _ in range(3):
        assert [work.may_run(member(index)) for index in range(3)] == [False, False, True]
    assert asked == [10, 20, 90]
    assert dict(work.declined) == {"battery at # %": 2}
    monkeypatch.setattr("producers.fleet.rounds.ASKED_EVERY_S", 0.0)
    work.may_run(member(0))
    assert work.declined.total() == 3
    summary = FleetSummary({}, 0, 1.0, {}, declined=dict(work.declined))
    assert summary.document()["declined"] == {"battery at # %": 3}


def test_who_may_not_any_more_when_it_would_train_keeps_its_base_and_its_lot() -> None:
    work, one = rounds(lambda _shard: "a call comes in", [1]), member(0)
    one.last_base, one.asked = 7, (7, 2)
    assert work.make(one, cast("Any", None), Behaviour.HONEST) == []
    assert (one.last_base, one.asked, one.rounds, one.failures) == (-1, (-1, -1), 0, 0)
    assert work.failed.total == 0


def test_where_nobody_asks_everybody_may() -> None:
    assert rounds(None, [1]).may_run(member(0))
    assert eligibility.reason_of(lambda: True) == ""
