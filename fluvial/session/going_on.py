"""Whether a run goes on with a task that was trained before, or begins a new one: never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aggregation.errors import FluvialError, UsageProblem
from backends.settings import stack_path
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import read_task_file, task_folder, task_names
from fluvial.reading.progress import read_journal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.terminal.output import Output
    from schemas.manifests import Genesis

Wish = Literal["ask", "continue", "fresh"]
JOURNAL: Final = "journal.jsonl"
NAME_CHARACTERS_MAX: Final = 48
"""As ``learning.names`` has it."""
GO_ON: Final = "continue"
FRESH: Final = "fresh"
STOP: Final = "stop"


@dataclass(frozen=True, slots=True)
class Course:
    """What a run does: train the task ``file`` further, or begin a new one called ``name`` where it is None."""

    name: str
    file: TaskFile | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user has said: the task file's lasting ``reference``, the ``name`` that a task of it has, the wish.

    ``typed`` is how he would type the run again, such as ``fluvial run mine.py``. Where the name is one that he has
    ``named``, only tasks of that name are meant; else every task of the file.
    """

    reference: str
    name: str
    wish: Wish
    typed: str
    named: bool = False


def choose_course(home: Path, asked: Asked, output: Output) -> Course:
    """Which task a run trains.

    A task that nobody has trained is no reason to ask: a new one of that name is made, or found as it is.

    Raises UsageProblem: FLV-6321, there is a trained one, nobody said what to do, and there is nobody to ask; FLV-6322,
    there is nothing to go on with; FLV-6003, the answer was to stop.
    """
    trained = trained_tasks(home, asked)
    if asked.wish == FRESH or not trained:
        if asked.wish == GO_ON:
            raise _nothing_to_go_on_with(home, asked)
        return Course(_new_name(home, asked, trained))
    newest = trained[-1]
    wish: str = asked.wish
    if wish == "ask":
        wish = _ask(home, asked, newest, output)
    if wish == STOP:
        raise UsageProblem(
            "FLV-6003",
            "not confirmed, nothing was changed",
            hint="`--continue` or `--fresh` answers beforehand",
        )
    return Course(newest.task, newest) if wish == GO_ON else Course(free_task_name(home, asked.name))


def trained_tasks(home: Path, asked: Asked) -> list[TaskFile]:
    """The tasks of this very task file that a run has trained here, the most recently made last.

    ``fluvial down --delete-data`` takes their logs and models; what is left of them then is no task to go on with.
    """
    if not stack_path(home).is_file():
        return []
    like = re.compile(rf"{re.escape(asked.name)}(-\d+)?" if asked.named else ".*")
    return [
        file
        for name in task_names(home)
        if like.fullmatch(name)
        and (file := _readable(home, name)) is not None
        and file.reference == asked.reference
        and _was_trained(home, name)
    ]


def free_task_name(home: Path, wanted: str) -> str:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that this home has no task of."""
    taken = set(task_names(home))
    number, name = 1, wanted
    while name in taken:
        number += 1
        end = f"-{number}"
        name = wanted[: NAME_CHARACTERS_MAX - len(end)] + end
    return name


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task stands in its store: its genesis document and its newest version."""

    store: TaskStore
    genesis: Genesis
    head: int


def standing_of(settings: Settings, file: TaskFile) -> Standing:
    """How the task that a run goes on with stands. UsageProblem FLV-6322 when the store does not have it."""
    store = TaskStore(open_object_store(settings.store), file.task)
    head = store.head()
    if head is None:
        raise UsageProblem(
            "FLV-6322",
            f"the task {file.task} cannot go on: the store has nothing of it",
            where=store.store.describe(),
            hint="begin a new one with `--fresh`",
        )
    return Standing(store, store.genesis(file.genesis_sha256), head.version)


@dataclass(frozen=True, slots=True)
class Further:
    """A task ``file`` to go on with, and what was said of things that it took when it was made.

    None and False are what was not said.
    """

    file: TaskFile
    regions: Mapping[str, int] | None = None
    seed: int | None = None
    policy: bool = False


def refuse_what_is_fixed(further: Further, partitions: Mapping[str, int]) -> None:
    """UsageProblem FLV-6323 for an option that would change what the task is made of."""
    file = further.file
    wrong = []
    if further.regions is not None and dict(further.regions) != dict(partitions):
        wrong.append("--regions")
    if further.seed is not None and further.seed != file.seed:
        wrong.append("--seed")
    if further.policy:
        wrong.append("--policy")
    if wrong:
        raise UsageProblem(
            "FLV-6323",
            f"the task {file.task} goes on as it was made, and {' and '.join(wrong)} would change it",
            hint=f"leave {' and '.join(wrong)} out, or begin a new task with `--fresh`",
        )


def _new_name(home: Path, asked: Asked, trained: list[TaskFile]) -> str:
    """The name itself where its task was made from this file and never trained: making it again changes nothing."""
    untrained = not trained and asked.name in task_names(home)
    same = _readable(home, asked.name) if untrained else None
    if same is not None and same.reference == asked.reference and not _was_trained(home, asked.name):
        return asked.name
    return free_task_name(home, asked.name)


def _ask(home: Path, asked: Asked, newest: TaskFile, output: Output) -> str:
    published = len(read_journal(task_folder(home, newest.task) / JOURNAL))
    fresh = free_task_name(home, asked.name)
    what = f"the task {newest.task} was trained before ({published} updates)"
    if not output.can_ask:
        raise UsageProblem(
            "FLV-6321",
            f"{what}, and nobody says whether to go on with it",
            hint=f"`{asked.typed} --continue` trains more versions on top of it; "
            f"`{asked.typed} --fresh` begins a new task, {fresh}",
        )
    return output.choose(
        f"{what}: {GO_ON} with more versions, or begin {FRESH} as {fresh}?",
        (GO_ON, FRESH, STOP),
        default=GO_ON,
    )


def _nothing_to_go_on_with(home: Path, asked: Asked) -> UsageProblem:
    other = _readable(home, asked.name) if asked.name in task_names(home) else None
    reason = f"no task {asked.name} of it was trained here"
    if other is not None and other.reference != asked.reference:
        reason = f"the task {asked.name} was made from another file"
    return UsageProblem(
        "FLV-6322",
        f"there is nothing to go on with: {reason}",
        where=f"{other.reference if other is not None else asked.reference} ({home})",
        hint=f"`{asked.typed}` begins a new one; `fluvial task list` shows all",
    )


def _readable(home: Path, name: str) -> TaskFile | None:
    try:
        return read_task_file(home, name)
    except FluvialError:
        return None


def _was_trained(home: Path, name: str) -> bool:
    journal = task_folder(home, name) / JOURNAL
    return journal.is_file() and journal.stat().st_size > 0
