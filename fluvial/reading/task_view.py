"""What every operators' command begins with: one task, its store and its log, checked to be within reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aggregation.errors import UsageProblem
from aggregation.server.aggregates import Slot
from backends.kafka.admin import require_broker
from backends.kafka.reading import LogReader
from backends.settings import Settings, StackRole
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, read_task_file
from fluvial.terminal.invocation import Invocation
from schemas.certificates import Trust
from schemas.manifests import Genesis, Manifest
from schemas.topics import metrics_topic

EVALUATIONS_READ_MAX: Final = 500
METRICS_READ_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task, opened for reading."""

    settings: Settings
    file: TaskFile
    objects: TaskStore
    genesis: Genesis
    reader: LogReader

    @property
    def task(self) -> str:
        """The task's name."""
        return self.file.task

    @property
    def trust(self) -> Trust:
        """The CAs of the genesis document."""
        return self.genesis.trust

    def slot(self, region: str, partition: int) -> Slot:
        """A partition of the task; UsageProblem FLV-6204 when it has no such one."""
        known = self.genesis.partitions.get(region)
        if known is None:
            raise UsageProblem(
                "FLV-6204",
                f"task {self.task} has no region {region!r}",
                hint=f"its regions are {', '.join(self.genesis.partitions)}",
            )
        if not 0 <= partition < known:
            raise UsageProblem(
                "FLV-6204",
                f"region {region} of task {self.task} has no partition {partition}",
                hint=f"its partitions are 0 to {known - 1}",
            )
        return region, partition

    def head(self) -> int:
        """The newest version."""
        head = self.objects.head()
        assert head is not None, "the genesis was read, so there is a version 0"
        return head.version

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version above 0; UsageProblem FLV-6205 when there is no such version."""
        head = self.head()
        if not 1 <= version <= head:
            exist = f"versions 1 to {head} exist" if head else "no version above 0 was made yet"
            raise UsageProblem(
                "FLV-6205",
                f"task {self.task} has no version {version} made of updates: {exist}",
                hint="see them with `fluvial versions`",
            )
        return self.objects.manifest(version)

    def evaluations(self) -> dict[int, dict[str, Any]]:
        """The newest evaluations by version, the first of each; reads at most ``METRICS_READ_MAX`` records."""
        return self.told().evaluations

    def told(self) -> Told:
        """What the metrics topic tells of the newest versions; reads at most ``METRICS_READ_MAX`` records.

        Windows and minutes stand between them, so it reads back in pieces until it has enough evaluations, or all.
        """
        topic = metrics_topic(self.task)
        low, high = self.reader.bounds(topic, 0)
        low = max(low, high - METRICS_READ_MAX)
        found = Told({}, {})
        records = EVALUATIONS_READ_MAX
        while high > low and len(found.evaluations) < EVALUATIONS_READ_MAX and 0 not in found.evaluations:
            start = max(low, high - records)
            piece = Told({}, {})
            for record in self.reader.read(topic, 0, start, high):
                piece.add(record.value or b"")
            found = Told(
                found.evaluations | piece.evaluations, found.canaries | piece.canaries
            )  # earlier win
            high = start
            records *= 2
        return found


@dataclass(frozen=True, slots=True)
class Told:
    """What unsigned records tell of versions, the first of each: for looking, not for deciding.

    ``canaries`` are the refusals of canaries in a version, where its merger knew them.
    """

    evaluations: dict[int, dict[str, Any]]
    canaries: dict[int, int]

    def add(self, value: bytes) -> None:
        """Take one record of the metrics topic."""
        if (evaluation := _document(value, "evaluation")) is not None:
            self.evaluations.setdefault(evaluation["version"], evaluation)
        elif (version := _document(value, "version")) is not None:
            canaries = version.get("canaries")
            if isinstance(canaries, int) and canaries >= 0:
                self.canaries.setdefault(version["version"], canaries)


def _document(value: bytes, kind: str) -> dict[str, Any] | None:
    """The record of this kind; None for another one, and for what other tools may have written there."""
    if f'"{kind}"'.encode() not in value:
        return None
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("kind") != kind:
        return None
    return document if isinstance(document.get("version"), int) else None


@contextmanager
def open_task(invocation: Invocation, task: str | None, role: StackRole = "reader") -> Iterator[TaskView]:
    """Open a task for reading, and as another ``role`` for more.

    Raises FLV-1001 (the stack is down), FLV-2401 (no such task), FLV-3100 (no broker answers), FLV-4103 (the genesis is
    another than this machine trusts).
    """
    settings = invocation.settings(role)
    file = read_task_file(invocation.home, task)
    require_broker(settings)
    objects = TaskStore(open_object_store(settings.store), file.task)
    genesis = objects.genesis(file.genesis_sha256)
    with LogReader(settings, f"fluvial-operator-{file.task}") as reader:
        yield TaskView(settings, file, objects, genesis, reader)
