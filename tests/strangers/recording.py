"""A federation in memory, written to files: topics as Avro object containers, every object by its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import fastavro

from backends.log import LogRecord
from backends.object_store import ObjectStore
from schemas.topics import topics_of
from tests.small_federation import SmallFederation

BYTES: Final = ["null", "bytes"]
SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "LogRecord",
    "fields": [
        {"name": "offset", "type": "long"},
        {"name": "timestamp_ms", "type": "long"},
        {"name": "key", "type": BYTES},
        {"name": "value", "type": BYTES},
        {
            "name": "headers",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Header",
                    "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": BYTES}],
                },
            },
        },
    ],
}


def record(federation: SmallFederation, folder: Path) -> None:
    """As ``tests/golden/federation.v1`` was."""
    write(folder, federation.task, federation.partitions, federation.records, federation.objects.store)


def write(
    folder: Path,
    task: str,
    partitions: Mapping[str, int],
    records: Callable[[str, int], Iterable[LogRecord]],
    store: ObjectStore,
) -> None:
    """A task's topics and objects. ``records`` gives a partition of a topic, whole."""
    for topic in topics_of(task, partitions):
        (folder / "topics" / topic.name).mkdir(parents=True)
        for partition in range(topic.partitions):
            rows = [
                {
                    "offset": one.offset,
                    "timestamp_ms": one.timestamp_ms,
                    "key": one.key,
                    "value": one.value,
                    "headers": [{"name": name, "value": value} for name, value in one.headers],
                }
                for one in records(topic.name, partition)
            ]
            with (folder / "topics" / topic.name / f"{partition}.avro").open("wb") as file:
                fastavro.writer(file, SCHEMA, rows)
    for key in store.list(f"{task}/"):
        path = folder / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(key))
