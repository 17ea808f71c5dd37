"""Removing one task: its topics, its objects, what this machine has of it, and nothing of any other task.

What makes it findable goes last, so a removal that was interrupted can be repeated.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backends.kafka.admin import delete_topics
from backends.object_store import ObjectNotFound
from backends.store.factory import open_object_store
from backends.store.removing import remove_objects
from backends.store.task_store import TaskStore
from backends.tasks import keys_folder, task_folder
from fluvial.local.stack_access import forbid_task
from schemas.topics import topics_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.terminal.output import Reporter

_TASK_FILE: Final = "task.json"


@dataclass(frozen=True, slots=True)
class Removed:
    """What has gone. ``kept``: folders that stay."""

    topics: int
    objects: int
    keys: int
    kept: tuple[Path, ...]


def keys_of(home: Path, task: str) -> int:
    """How many private keys of a task this machine has: CAs and issued ones."""
    return sum(1 for path in keys_folder(home, task).rglob("*.pem") if path.is_file())


def remove_task(settings: Settings, file: TaskFile, reporter: Reporter, *, keep_keys: bool) -> Removed:
    """Remove it. Raises what Kafka and the store raise when they are away; then nothing of this machine has gone."""
    home, task = settings.home, file.task
    partitions, guided = _partitions(settings, file), file.is_guided
    table = topics_of(task, partitions, guided=guided, heartbeats=file.has_heartbeats)
    topics = delete_topics(settings, [topic.name for topic in table])
    forbid_task(settings, task, partitions, guided=guided, heartbeats=file.has_heartbeats)
    reporter.say(f"deleted {len(topics)} topics")
    objects = remove_objects(settings.store, f"{task}/")
    reporter.say(f"deleted {objects} objects")
    keys = 0 if keep_keys else keys_of(home, task)
    shutil.rmtree(home / "logs" / task, ignore_errors=True)
    folder = task_folder(home, task)
    for path in sorted(folder.iterdir(), key=lambda one: one.name == _TASK_FILE):
        if keep_keys and path == keys_folder(home, task):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):  # the keys are in it
        folder.rmdir()
    kept = (keys_folder(home, task), home / "reports" / task)
    return Removed(len(topics), objects, keys, tuple(path for path in kept if path.exists()))


def _partitions(settings: Settings, file: TaskFile) -> Mapping[str, int]:
    """Names of topics follow from the regions alone; of a task that was half removed the genesis may be gone."""
    try:
        return TaskStore(open_object_store(settings.store), file.task).genesis(file.genesis_sha256).partitions
    except ObjectNotFound:
        return dict.fromkeys(file.regions, 1)
