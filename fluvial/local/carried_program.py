"""The program that a new task carries: what is in it, and where it is put."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backends.programs import keep_program
from schemas.manifests import Code
from schemas.objects import sha256_hex
from schemas.program_archive import encode_program

if TYPE_CHECKING:
    from pathlib import Path

    from backends.store.task_store import TaskStore
    from fluvial.terminal.output import Reporter
    from learning import Task


class CarriedProgram(NamedTuple):
    """An archive, and how a genesis names it; None for a task that carries none."""

    archive: bytes
    code: Code | None

    def keep(self, home: Path, store: TaskStore) -> None:
        """Put it into the task's store and folder."""
        if self.code is not None:
            store.put_object(self.archive)
            keep_program(home, store.task, self.archive)


def carried_program(loaded: Task, output: Reporter) -> CarriedProgram:
    """Of a task file and what it imports; none for a shipped task, and for one that is too large, which is said."""
    from learning.program_files import program_files
    from learning.task import SHIPPED_TASKS_FOLDER

    if loaded.path.parent == SHIPPED_TASKS_FOLDER:
        return CarriedProgram(b"", None)
    program = program_files(loaded.path)
    if program.left_out:
        output.say(
            f"note: the task does not carry {', '.join(program.left_out)}, which its program imports: only Python "
            "source travels with it"
        )
    try:
        archive = encode_program(program.files)
    except ValueError as problem:
        output.say(
            f"note: the task does not carry its program ({problem}): other machines need {loaded.path} at this place"
        )
        return CarriedProgram(b"", None)
    return CarriedProgram(archive, Code(sha256_hex(archive), len(archive), program.entry))
