"""A home with one task of ten thousand versions, and a log of a million verdicts that is made as it is read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from backends.log import LogRecord
from backends.store.file import FileStore
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from fluvial.console.budget import Budget, PagedLog, PagedStore
from fluvial.console.looks import LogSeen, Made, StoreSeen
from fluvial.console.paging import Page, Readers
from fluvial.console.recent import Recent, SlotFacts
from fluvial.console.threads import Seen
from fluvial.console.watch import Known, Watch
from schemas.manifests import Genesis, Input, Manifest, Region, TensorEntry
from schemas.objects import manifest_key, sha256_hex
from tests import factories
from tests.factories import verdict_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TASK = "many"
SLOT = ("eu", 0)
VERSIONS = 10_000
RECORDS = 1_000_000
POLICY = factories.policy()


def genesis() -> Genesis:
    return Genesis(
        task=TASK,
        regions={"eu": Region(1, "")},
        control_authority="",
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in factories.LAYOUT.tensors),
        policy=msgspec.json.decode(POLICY.canonical()),
        model_sha256="0" * 64,
        optimizer_sha256="0" * 64,
    )


def manifest(version: int, inputs: tuple[Input, ...] = ()) -> Manifest:
    return Manifest(
        task=TASK,
        version=version,
        parent_sha256="1" * 64,
        policy_sha256=POLICY.sha256,
        inputs=inputs,
        cursors={"eu": (version,)},
        counts={"accepted": 3},
        accepted=3,
        weight_total=3 * 65536,
        staleness_total=1,
        staleness_max=1,
        update_bytes=10,
        model_sha256="3" * 64,
        optimizer_sha256="4" * 64,
        reference_sha256="",
        floor=0,
    )


def window(first: int, end: int, accepted: int) -> Input:
    return Input("eu", 0, 0, first, end, accepted, "5" * 64, "6" * 64)


def fill_store(folder: Path, versions: int, huge: int) -> FileStore:
    """Manifests written as plain files, which is what the store reads; version ``huge`` has a million records."""
    store = FileStore(folder)
    for version in range(versions + 1):
        one = (
            genesis()
            if version == 0
            else manifest(version, (window(0, RECORDS, RECORDS),) * (version == huge))
        )
        path = folder / manifest_key(TASK, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.canonical())
    return store


@dataclass
class LongLog:
    """A topic of ``records`` verdicts, each made when it is read; ``read`` counts them, whoever reads."""

    records: int = RECORDS
    read: int = 0
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        del topic, partition
        return 0, self.records

    def follow(
        self, starts: Mapping[tuple[str, int], int], *, timeout_s: float | None = None
    ) -> Iterator[LogRecord | None]:
        del timeout_s
        ((topic, partition), start) = next(iter(starts.items()))
        self.asked.append((topic, partition, start))
        for offset in range(start, self.records):
            self.read += 1
            yield LogRecord(topic, partition, offset, 1000 + offset, None, verdict_value(offset))


def verdict_value(offset: int) -> bytes:
    return verdict_bytes(
        Verdict(
            offset,
            ACCEPTED,
            device_id=f"d-{offset % 100}",
            update_id=f"u-{offset}",
            staleness=0,
            weight=65536,
        )
    )


def page_on(store: FileStore, log: LongLog, home: Path, head: int = VERSIONS) -> Page:
    """One request's page, with nothing around it running."""
    file = TaskFile(
        task=TASK, genesis_sha256=sha256_hex(genesis().canonical()), reference="digits", regions=("eu",)
    )
    write_task_file(home, file)
    watch = Watch(home, file)
    watch.recent = Recent({SLOT: SlotFacts()})
    now_ms = round(time.time() * 1000)
    made = (Made(head, "7" * 64, manifest(head)),)
    known = Known(
        now_ms,
        TASK,
        Seen(StoreSeen(genesis(), head, made, None), now_ms, ""),
        Seen(LogSeen({SLOT: log.records}, {}, ()), now_ms, ""),
        Seen((), now_ms, ""),
        [],
    )
    budget = Budget()
    return Page(
        watch,
        known,
        "fluvial",
        Readers(),
        budget,
        _log=PagedLog(log, budget),
        _objects=TaskStore(PagedStore(store, budget), TASK),
    )
