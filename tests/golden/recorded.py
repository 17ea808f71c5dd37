"""The recorded federation as it lies here: its log, its store, its genesis. Other interpreters read it too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro

from backends.log import LogRecord
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from schemas.manifests import Genesis, decode_genesis
from schemas.topics import topics_of

FOLDER: Final = Path(__file__).parent / "federation.v1"
TASK: Final = "golden"
EXPECTED: Final[dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text())


@cache
def records(topic: str, partition: int) -> tuple[LogRecord, ...]:
    """A partition as it stood."""
    with (FOLDER / "topics" / topic / f"{partition}.avro").open("rb") as file:
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


def objects() -> dict[str, bytes]:
    """Every object by its key."""
    store = FOLDER / "store"
    return {
        path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }


def store_of(kept: Mapping[str, bytes]) -> TaskStore:
    """A store in memory with these objects."""
    store = MemoryStore()
    for key, data in kept.items():
        store.put(key, data)
    return TaskStore(store, TASK)


def genesis() -> Genesis:
    """The recorded task."""
    return decode_genesis(objects()[f"{TASK}/versions/0/manifest.json"])


def partitions() -> list[tuple[str, int]]:
    """Every topic of the task, and its number of partitions."""
    return [(topic.name, topic.partitions) for topic in topics_of(TASK, genesis().partitions)]
