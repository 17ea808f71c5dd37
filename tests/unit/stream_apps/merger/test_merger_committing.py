"""Committing: one manifest a version, whoever races for it, and its files after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from backends.object_store import StoreUnavailable
from backends.observer import Observer
from backends.store.file import FileStore
from schemas.checkpoints import decode_direction
from schemas.objects import manifest_key
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.committing import Committing
from stream_apps.merger.policies import Policies
from stream_apps.merger.windows import Windows
from tests.unit.stream_apps.merger.merger_parts import (
    LAYOUT,
    TASK,
    Logs,
    ManualClock,
    publish_window,
    small_task,
)

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.server.aggregates import Aggregate
    from backends.log import Headers
    from schemas.manifests import Manifest
    from stream_apps.merger.version import Version


class PatientClock(ManualClock):
    """To sleep is to be later."""

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class LostAnswers(FileStore):
    """A file store of which the answers to the first ``lost`` creations do not arrive."""

    lost = 0

    def create(self, key: str, data: bytes) -> bool:
        made = super().create(key, data)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("FLV-4002", "the answer was lost")
        return made


class Steps(Observer):
    """What a merger tells while it commits, and whether the version's files stand by then."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def merging(self, version: int, chosen: Any) -> None:
        self.told.append(f"merging {version} of {len(chosen)}")

    def committing(self, version: int) -> None:
        self.told.append(f"committing {version}")

    def committed(self, manifest: Manifest, chosen: Any, stored_bytes: int) -> Headers:
        assert stored_bytes > len(manifest.canonical())
        self.told.append(f"committed {manifest.version} of {len(chosen)}")
        return (("trace", b"7"),)


class Task:
    """One task with two windows of three updates each, and those who may commit a version of them."""

    def __init__(self, folder: Path) -> None:
        self.store, self.observer, logs = LostAnswers(folder), Steps(), Logs()
        self.context = small_task(
            folder, logs=logs, store=self.store, observer=self.observer, clock=PatientClock()
        )
        self.windows: tuple[Aggregate, ...] = (
            publish_window(self.context, logs, ("eu", 0)),
            publish_window(self.context, logs, ("us", 0)),
        )
        self.head: Version = Adopting(self.context, Policies(self.context)).genesis()

    def committing(self) -> Committing:
        return Committing(self.context, Policies(self.context))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


def test_a_version_that_was_committed_stands_whole_in_the_store(task: Task) -> None:
    committed = task.committing().commit(task.head, task.windows)
    assert committed is not None
    assert task.context.store.manifest(1) == committed.manifest
    assert task.context.store.has_checkpoint(1)
    reference = task.context.store.get_object(committed.version.reference_sha256)
    assert decode_direction(reference, LAYOUT) is not None
    windows = Windows(task.context, task.head.cursors)
    adopted = Adopting(task.context, Policies(task.context)).after(task.head, windows)
    assert adopted is not None
    assert adopted.manifest_sha256 == committed.version.manifest_sha256
    assert task.observer.told == ["merging 1 of 2", "committing 1", "committed 1 of 2"]
    assert committed.headers == (("trace", b"7"),)


def test_of_two_mergers_that_chose_differently_one_makes_the_version(task: Task) -> None:
    winner = task.committing().commit(task.head, task.windows)
    assert winner is not None
    assert task.committing().commit(task.head, task.windows[:1]) is None
    assert task.context.store.manifest(1) == winner.manifest
    assert task.observer.told[3:] == ["merging 1 of 1", "committing 1"]


def test_a_commit_whose_answer_is_lost_was_a_commit(task: Task) -> None:
    task.store.lost = 1
    committed = task.committing().commit(task.head, task.windows)
    assert committed is not None
    assert task.context.store.manifest(1) == committed.manifest


def test_a_lost_answer_hides_no_other_merger(task: Task) -> None:
    other = task.committing().commit(task.head, task.windows[:1])
    assert other is not None
    task.store.lost = 1
    assert task.committing().commit(task.head, task.windows) is None
    assert task.store.get(manifest_key(TASK, 1)) == other.manifest.canonical()
