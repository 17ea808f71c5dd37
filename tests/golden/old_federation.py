"""A recorded federation in memory: its log, its task folder, and workers and merger with its keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final, TypedDict

from aggregation.server.aggregates import Slot
from backends import keys
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.settings import Settings, StoreSettings
from backends.store.task_store import TaskStore
from backends.tasks import read_task_file
from fluvial.local.create import MERGER, worker_name
from fluvial.proof.audit import AuditReport, audit_task
from fluvial.proof.audit.sources import Sources
from fluvial.session.in_process import InProcessFederation, memory_log_of
from fluvial.terminal.output import Output
from schemas.certificates import CONTROL, Role
from schemas.envelope import KeyPair
from tests.golden.recorded import FIRST, FOLDER, TASK, Recording, store_of

ORDER: Final[dict[str, Any]] = json.loads((FOLDER / "order.json").read_text())


def clock(of: Recording = FIRST) -> ManualClock:
    """A clock that begins when the last record was appended."""
    last_ms = max(
        one.timestamp_ms
        for topic, count in of.partitions()
        for p in range(count)
        for one in of.records(topic, p)
    )
    return ManualClock(last_ms / 1000)


def log_with(*topics: str, at: ManualClock, of: Recording = FIRST) -> MemoryLog:
    """The recorded log, of these topics (all if none is named)."""
    log = memory_log_of(of.genesis(), at)
    for topic, count in of.partitions():
        if not topics or topic in topics:
            for partition in range(count):
                for record in of.records(topic, partition):
                    log.load(record)
    return log


def signer(region: str, role: Role, name: str, *, of: Recording = FIRST) -> KeyPair:
    """A key of the recorded task folder."""
    return keys.load_key_pair(keys.signer_path(of.folder / "task" / "keys", region, role, name))


class Signers(TypedDict):
    """Those of the workers by their regions, and the merger's."""

    workers: dict[str, KeyPair]
    merger: KeyPair


def signers(of: Recording = FIRST) -> Signers:
    """The recorded keys."""
    workers = {
        region: signer(region, Role.WORKER, worker_name(region), of=of) for region in of.genesis().regions
    }
    return {"workers": workers, "merger": signer(CONTROL, Role.MERGER, MERGER, of=of)}


def federation(
    log: MemoryLog, store: TaskStore, at: ManualClock, of: Recording = FIRST
) -> InProcessFederation:
    """Workers and merger with the recorded keys."""
    return InProcessFederation(
        of.genesis(),
        store,
        writer=MemoryWriter(log),
        open_reader=lambda _purpose: MemoryReader(log),
        clock=at,
        **signers(of),
    )


def audited(
    tmp_path: Path,
    kept: dict[str, bytes],
    first: int,
    last: int,
    *,
    jobs: int = 1,
    output: Output | None = None,
    of: Recording = FIRST,
) -> AuditReport:
    """The real audit over the recorded log, with the recorded task folder in a home."""
    home = tmp_path / "home"
    shutil.copytree(of.folder / "task", home / "tasks" / TASK, dirs_exist_ok=True)
    settings = Settings(
        home=home,
        bootstrap_servers="127.0.0.1:1",
        store=StoreSettings(kind="file", path=tmp_path / "unused"),
    )
    log, store = log_with(at=clock(of), of=of), store_of(kept)
    return audit_task(
        settings,
        read_task_file(home, TASK),
        first=first,
        last=last,
        jobs=jobs,
        output=output,
        sources=lambda: Sources(lambda _purpose: MemoryReader(log), store.store),
    )


def slot_of(window: dict[str, Any]) -> Slot:
    """The partition of a window of ``order.json``."""
    return (window["region"], window["partition"])
