"""What this machine knows of a task: ``<home>/tasks/<task>/task.json`` and the keys beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from aggregation.errors import UsageProblem
from backends.folders import make_private
from backends.text_files import plain_utf8
from schemas.certificates import NAME_PATTERN
from schemas.topics import TASK_NAME


class TaskFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``task.json``: ``genesis_sha256`` is the trust anchor, ``reference`` its code (a file, or a shipped name).

    ``settings`` were given by ``--set`` and go over the CONFIG of its code, in every process alike. ``devices`` and
    ``alpha`` are the data split that ``fluvial run`` trains on, None where it was made otherwise. ``guided``: its first
    policy is, so that it has guardians and a topic of guides; not said where it is not. ``heartbeats``: it was created
    with a topic of these; likewise.
    """

    task: str
    genesis_sha256: str
    reference: str
    regions: tuple[str, ...]
    seed: int = 0
    settings: dict[str, Any] = {}
    devices: int | None = None
    alpha: float | None = None
    guided: bool | msgspec.UnsetType = msgspec.UNSET
    heartbeats: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def has_heartbeats(self) -> bool:
        """Whether the task has a topic of heartbeats."""
        return self.heartbeats is True

    @property
    def is_guided(self) -> bool:
        """Whether the task has guardians."""
        return self.guided is True


def task_folder(home: Path, task: str) -> Path:
    """The folder of one task."""
    return home / "tasks" / task


def keys_folder(home: Path, task: str) -> Path:
    """Where a task's CAs and issued keys are."""
    return task_folder(home, task) / "keys"


def private_folder(home: Path, task: str) -> Path:
    """Where this machine's devices keep what never leaves them, a folder a device."""
    return task_folder(home, task) / "private"


def write_task_file(home: Path, file: TaskFile) -> None:
    """Record a task, all or nothing."""
    folder = task_folder(home, file.task)
    make_private(folder)
    part = folder / "task.json.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2))
    part.replace(folder / "task.json")


def task_names(home: Path) -> list[str]:
    """The tasks that this machine knows, the most recently created last."""
    files = sorted((home / "tasks").glob("*/task.json"), key=lambda path: path.stat().st_mtime)
    return [path.parent.name for path in files]


def read_task_file(home: Path, task: str | None) -> TaskFile:
    """One task's file; None means the only one, or the newest. UsageProblem FLV-2401 (none), FLV-2402 (damaged)."""
    names = task_names(home)
    if task is None and names:
        task = names[-1]
    if task is None or task not in names:
        known = f"known here: {', '.join(names)}" if names else "none was created here"
        raise UsageProblem(
            "FLV-2401",
            f"no task {task!r}" if task else "no task",
            where=f"{known} ({home})",
            hint="create one with `fluvial task create digits`, or run `fluvial demo`",
        )
    path = task_folder(home, task) / "task.json"
    try:
        file = msgspec.json.decode(plain_utf8(path.read_bytes()), type=TaskFile)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    # They become names of topics, keys of objects and patterns of permissions, in which `*` is everything.
    if file.task != task or not TASK_NAME.fullmatch(task):
        raise _damaged(path, f"is of a task {file.task!r}")
    for region in file.regions:
        if not NAME_PATTERN.fullmatch(region):
            raise _damaged(path, f"names a region {region!r}")
    return file


def _damaged(path: Path, reason: str) -> UsageProblem:
    return UsageProblem("FLV-2402", f"{path} {reason}", hint="restore it, or create the task again")
