"""The recorded federation in memory: its log, its store, its task folder, and what was expected of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypedDict

import fastavro

from aggregation.server.aggregates import Slot
from backends import keys
from backends.log import LogRecord
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.local.create import MERGER, worker_name
from fluvial.session.in_process import InProcessFederation, memory_log_of
from schemas.certificates import CONTROL, Role
from schemas.envelope import KeyPair
from schemas.manifests import Genesis, decode_genesis
from schemas.topics import topics_of

FOLDER: Final = Path(__file__).parent / "federation.v1"
TASK: Final = "golden"
EXPECTED: Final[dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text())
ORDER: Final[dict[str, Any]] = json.loads((FOLDER / "order.json").read_text())
KEYS: Final = FOLDER / "task" / "keys"


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


def store_of(kept: dict[str, bytes]) -> TaskStore:
    """A store in memory with these objects."""
    store = MemoryStore()
    for key, data in kept.items():
        store.put(key, data)
    return TaskStore(store, TASK)


def genesis() -> Genesis:
    """The recorded task."""
    return decode_genesis(objects()[f"{TASK}/versions/0/manifest.json"])


def clock() -> ManualClock:
    """A clock that begins when the last record was appended."""
    last_ms = max(
        one.timestamp_ms for topic, count in partitions() for p in range(count) for one in records(topic, p)
    )
    return ManualClock(last_ms / 1000)


def partitions() -> list[tuple[str, int]]:
    """Every topic of the task, and its number of partitions."""
    return [(topic.name, topic.partitions) for topic in topics_of(TASK, genesis().partitions)]


def log_with(*topics: str, at: ManualClock) -> MemoryLog:
    """The recorded log, of these topics (all if none is named)."""
    log = memory_log_of(genesis(), at)
    for topic, count in partitions():
        if not topics or topic in topics:
            for partition in range(count):
                for record in records(topic, partition):
                    log.load(record)
    return log


def signer(region: str, role: Role, name: str) -> KeyPair:
    """A key of the recorded task folder."""
    return keys.load_key_pair(keys.signer_path(KEYS, region, role, name))


class Signers(TypedDict):
    """Those of the workers by their regions, and the merger's."""

    workers: dict[str, KeyPair]
    merger: KeyPair


def signers() -> Signers:
    """The recorded keys."""
    workers = {region: signer(region, Role.WORKER, worker_name(region)) for region in genesis().regions}
    return {"workers": workers, "merger": signer(CONTROL, Role.MERGER, MERGER)}


def federation(log: MemoryLog, store: TaskStore, at: ManualClock) -> InProcessFederation:
    """Workers and merger with the recorded keys."""
    return InProcessFederation(
        genesis(),
        store,
        writer=MemoryWriter(log),
        open_reader=lambda _purpose: MemoryReader(log),
        clock=at,
        **signers(),
    )


def slot_of(window: dict[str, Any]) -> Slot:
    """The partition of a window of ``order.json``."""
    return (window["region"], window["partition"])
