"""The recorded federation in memory: its log, its task folder, and workers and merger with its keys."""

from __future__ import annotations

import json
from typing import Any, Final, TypedDict

from aggregation.server.aggregates import Slot
from backends import keys
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.store.task_store import TaskStore
from fluvial.local.create import MERGER, worker_name
from fluvial.session.in_process import InProcessFederation, memory_log_of
from schemas.certificates import CONTROL, Role
from schemas.envelope import KeyPair
from tests.golden.recorded import FOLDER, genesis, partitions, records

ORDER: Final[dict[str, Any]] = json.loads((FOLDER / "order.json").read_text())
KEYS: Final = FOLDER / "task" / "keys"


def clock() -> ManualClock:
    """A clock that begins when the last record was appended."""
    last_ms = max(
        one.timestamp_ms for topic, count in partitions() for p in range(count) for one in records(topic, p)
    )
    return ManualClock(last_ms / 1000)


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
