"""A second run of a task file: it goes on, begins anew, asks, or says what it needs to be told; it never guesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import UsageProblem
from backends.settings import stack_path
from backends.tasks import TaskFile, read_task_file, task_folder, write_task_file
from fluvial.session.going_on import (
    Asked,
    Course,
    Further,
    choose_course,
    free_task_name,
    refuse_what_is_fixed,
)
from fluvial.terminal.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.session.going_on import Wish

MINE = "/somewhere/mine.py"


def made(home: Path, name: str, *, reference: str = MINE, trained: bool = True) -> TaskFile:
    file = TaskFile(task=name, genesis_sha256="aa", reference=reference, regions=("local",))
    write_task_file(home, file)
    if trained:
        (task_folder(home, name) / "journal.jsonl").write_text(
            '{"region": "local", "partition": 0, "offset": 1, "device": "d-1", "behaviour": "honest", '
            '"base_version": 0, "update_id": "u"}\n'
        )
    return file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    stack_path(tmp_path).write_text("{}")
    return tmp_path


class Answering(Output):
    """An output with somebody at the terminal, who gives one answer."""

    def __init__(self, answer: str | None) -> None:
        super().__init__(quiet=True)
        self.answer = answer
        self.questions: list[str] = []

    @property
    def can_ask(self) -> bool:
        return self.answer is not None

    def choose(self, question: str, choices: Any, *, default: str) -> str:
        self.questions.append(question)
        assert self.answer in choices and default in choices
        return str(self.answer)


def course(home: Path, wish: Wish = "ask", *, name: str = "mine", answer: str | None = None) -> Course:
    asked = Asked(MINE, name, wish, "fluvial run mine.py", named=name != "mine")
    return choose_course(home, asked, Answering(answer))


@pytest.mark.parametrize("wish", ["ask", "fresh"])
def test_a_first_run_makes_the_task(home: Path, wish: Wish) -> None:
    assert course(home, wish) == Course("mine")


def test_a_second_run_says_what_it_needs_to_be_told_where_there_is_nobody_to_ask(home: Path) -> None:
    made(home, "mine")
    with pytest.raises(UsageProblem) as caught:
        course(home)
    assert caught.value.error_id == "FLV-6321"
    assert "`fluvial run mine.py --continue`" in caught.value.hint
    assert "`fluvial run mine.py --fresh` begins a new task, mine-2" in caught.value.hint


def test_a_second_run_on_a_terminal_asks(home: Path) -> None:
    file = made(home, "mine")
    assert course(home, answer="continue") == Course("mine", file)
    assert course(home, answer="fresh") == Course("mine-2")
    with pytest.raises(UsageProblem) as caught:
        course(home, answer="stop")
    assert caught.value.error_id == "FLV-6003"


def test_a_second_run_does_what_it_was_told(home: Path) -> None:
    file = made(home, "mine")
    assert course(home, "continue") == Course("mine", file)
    assert course(home, "fresh") == Course("mine-2")


def test_of_several_tasks_of_a_file_the_newest_goes_on(home: Path) -> None:
    made(home, "mine")
    newest = made(home, "mine-2")
    assert course(home, "continue") == Course("mine-2", newest)
    assert course(home, "fresh") == Course("mine-3")


def test_a_name_of_ones_own_is_a_task_of_its_own(home: Path) -> None:
    made(home, "mine")
    assert course(home, name="other") == Course("other")
    other = made(home, "other")
    assert course(home, "continue", name="other") == Course("other", other)
    assert course(home, "continue") == Course("other", other), (
        "the newest task of this file, whatever its name"
    )


def test_a_task_that_was_never_trained_is_no_reason_to_ask(home: Path) -> None:
    made(home, "mine", trained=False)
    assert course(home) == Course("mine")
    (task_folder(home, "mine") / "journal.jsonl").touch()
    assert course(home) == Course("mine")


@pytest.mark.parametrize("trained", [True, False])
def test_another_files_task_of_the_same_name_is_left_alone(home: Path, trained: bool) -> None:  # noqa: FBT001
    made(home, "mine", reference="/elsewhere/mine.py", trained=trained)
    assert course(home) == Course("mine-2")
    with pytest.raises(UsageProblem) as caught:
        course(home, "continue")
    assert caught.value.error_id == "FLV-6322" and "another file" in caught.value.message


def test_there_is_nothing_to_go_on_with_before_the_first_run_and_after_the_data_was_deleted(
    home: Path,
) -> None:
    with pytest.raises(UsageProblem) as caught:
        course(home, "continue")
    assert caught.value.error_id == "FLV-6322"
    made(home, "mine")
    stack_path(home).unlink()
    assert course(home) == Course("mine-2")


def test_a_damaged_task_file_is_not_gone_on_with(home: Path) -> None:
    made(home, "mine")
    (task_folder(home, "mine") / "task.json").write_text("{")
    assert course(home) == Course("mine-2")


@pytest.mark.parametrize("length", [47, 48])
def test_a_numbered_name_is_no_longer_than_a_name_may_be(home: Path, length: int) -> None:
    made(home, "m" * length)
    assert len(free_task_name(home, "m" * length)) <= 48
    assert free_task_name(home, "m" * length).endswith("-2")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"regions": {"eu": 2}}, "--regions"),
        ({"seed": 1}, "--seed"),
        ({"policy": True}, "--policy"),
        ({"regions": {"local": 3}, "seed": 1}, "--regions and --seed"),
    ],
)
def test_what_a_task_is_made_of_does_not_change_when_it_goes_on(
    home: Path, said: dict[str, Any], named: str
) -> None:
    file = made(home, "mine")
    with pytest.raises(UsageProblem, match=named) as caught:
        refuse_what_is_fixed(Further(file, **said), {"local": 2})
    assert caught.value.error_id == "FLV-6323"
    refuse_what_is_fixed(Further(file, regions={"local": 2}, seed=0), {"local": 2})


def test_settings_and_split_are_recorded_and_an_older_task_file_has_none(home: Path) -> None:
    made(home, "mine")
    path = task_folder(home, "mine") / "task.json"
    path.write_text(
        '{"task": "mine", "genesis_sha256": "aa", "reference": "digits", "regions": ["eu"], "seed": 3}'
    )
    old = read_task_file(home, "mine")
    assert (old.settings, old.devices, old.alpha) == ({}, None, None)
