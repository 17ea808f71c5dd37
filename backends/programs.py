"""Where a process finds a task's program: the file that it was created from, or the archive that the task carries.

A task names the archive of its program by hash (``schemas.program_archive``). It lies in the task's store and in its
folder on the machine that created it, so any machine that may read the store has the code, and has the right one. The
user's own file is used while it is the same, so that what it reads beside itself is found; else the archive is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from backends.tasks import task_folder
from schemas.objects import sha256_hex
from schemas.program_archive import decode_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.manifests import Code, Genesis

_SOURCE: Final = ".py"


def find_program(
    home: Path,
    genesis: Genesis,
    get_object: Callable[[str], bytes],
    reference: str = "",
    *,
    say: Callable[[str], None],
) -> str:
    """What ``load_task`` takes: a shipped task's name, or the path of the program's task file on this machine.

    get_object: an object of the task's store by its hash, checked. reference: what ``task.json`` says, "" where there
    is none. say: told when the file on this machine is another one.

    Raises UsageProblem FLV-2230: the program is not here and the task carries none. IntegrityProblem FLV-2231, 4103:
    the archive is damaged; and what the store raises.
    """
    code, own = genesis.code, Path(reference)
    is_file = own.suffix == _SOURCE
    if code is None:
        if reference and not (is_file and not own.is_file()):
            return reference
        raise _not_here(genesis.task, reference, task_folder(home, genesis.task) / "task.json")
    files = decode_program(_archive(home, genesis.task, code, get_object))
    root = _root_of(own, code.entry) if is_file else None
    if root is not None and own.is_file():
        changed = [name for name, data in files.items() if not _holds(root / name, data)]
        if not changed:
            return reference
        say(
            f"{', '.join(changed)} changed since the task {genesis.task} was created: its program as it was then is "
            "used (a changed program is a new task)"
        )
    return str(_unpacked(home / "cache" / "programs" / code.sha256, files) / code.entry)


def keep_program(home: Path, task: str, data: bytes) -> None:
    """Put an archive into the task's folder."""
    path = _path_of(home, task, sha256_hex(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def _path_of(home: Path, task: str, sha256: str) -> Path:
    return task_folder(home, task) / "code" / f"{sha256}.zip"


def _archive(home: Path, task: str, code: Code, get_object: Callable[[str], bytes]) -> bytes:
    try:
        data = _path_of(home, task, code.sha256).read_bytes()
    except OSError:
        return get_object(code.sha256)
    return data if sha256_hex(data) == code.sha256 else get_object(code.sha256)


def _root_of(file: Path, entry: str) -> Path | None:
    """The folder that ``entry`` is relative to; None if the file cannot be that one."""
    parts = Path(entry).parts
    return file.parents[len(parts) - 1] if file.parts[-len(parts) :] == parts else None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _unpacked(folder: Path, files: Mapping[str, bytes]) -> Path:
    """``folder`` with exactly these files. Two processes that do it at once come to the same."""
    if _is_exactly(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name[:16]}.", dir=folder.parent))
    for name, data in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix="old.", dir=folder.parent))
        with contextlib.suppress(OSError):  # another process was first
            folder.rename(old / "was")
        shutil.rmtree(old, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not _is_exactly(folder, files):
            raise
    return folder


def _is_exactly(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether these files lie there and no others: one more could be imported in another's place."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return there == set(files) and all(_holds(folder / name, data) for name, data in files.items())


def _not_here(task: str, reference: str, task_file: Path) -> UsageProblem:
    if not reference:
        return UsageProblem(
            "FLV-2230",
            f"the program of task {task} is not known here, and the task does not carry it",
            hint='the task was created before tasks carried their program: give its file, as in load_task("mine.py")',
        )
    return UsageProblem(
        "FLV-2230",
        f"the program of task {task} is not on this machine, and the task does not carry it",
        where=f"{task_file} names {reference}",
        hint=f"copy that file here from the machine that created the task, or to another place and name that one as "
        f'"reference" in {task_file}',
    )
