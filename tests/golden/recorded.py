"""Recorded federations as they lie here: log, store, genesis. Other interpreters read them too.

The first one, ``federation.v1``, can be read by this module's own functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import fastavro

from backends.log import LogRecord
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from schemas.manifests import Genesis, decode_genesis
from schemas.topics import topics_of

HERE: Final = Path(__file__).parent
TASK: Final = "golden"


@dataclass(frozen=True)
class Recording:
    """One recorded federation; its task is called ``TASK``."""

    folder: Path

    @cached_property
    def expected(self) -> dict[str, Any]:
        """What came of it when it was recorded."""
        expected: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        return expected

    def records(self, topic: str, partition: int) -> tuple[LogRecord, ...]:
        """A partition as it stood."""
        return _records(self.folder, topic, partition)

    def objects(self) -> dict[str, bytes]:
        """Every object by its key."""
        store = self.folder / "store"
        return {
            path.relative_to(store).as_posix(): path.read_bytes()
            for path in store.rglob("*")
            if path.is_file()
        }

    def genesis(self) -> Genesis:
        """The recorded task."""
        return decode_genesis(self.objects()[f"{TASK}/versions/0/manifest.json"])

    def partitions(self) -> list[tuple[str, int]]:
        """Every topic of the task, and its number of partitions."""
        return [(topic.name, topic.partitions) for topic in topics_of(TASK, self.genesis().partitions)]


@cache
def _records(folder: Path, topic: str, partition: int) -> tuple[LogRecord, ...]:
    with (folder / "topics" / topic / f"{partition}.avro").open("rb") as file:
        rows: Iterator[Any] = fastavro.reader(file)
        return tuple(
            LogRecord(
                topic,
                partition,
                one["offset"],
                one["timestamp_ms"],
                one["key"],
                one["value"],
                tuple((header["name"], header["value"]) for header in one["headers"]),
            )
            for one in rows
        )


def store_of(kept: Mapping[str, bytes]) -> TaskStore:
    """A store in memory with these objects."""
    store = MemoryStore()
    for key, data in kept.items():
        store.put(key, data)
    return TaskStore(store, TASK)


FIRST: Final = Recording(HERE / "federation.v1")
FOLDER: Final = FIRST.folder
EXPECTED: Final = FIRST.expected
records: Final = FIRST.records
objects: Final = FIRST.objects
genesis: Final = FIRST.genesis
partitions: Final = FIRST.partitions
