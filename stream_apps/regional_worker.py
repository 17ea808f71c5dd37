"""The regional worker.

::

    fl.<task>.updates.<region>[p]     signed envelopes: ClientUpdate, Barrier, Tick, Revoke
        │  fold_region: one actor a partition (isolated), records in offset order
        ▼
    PartitionWorker.process           decode → authenticate → fold (pure) → effects
        ├─▶ fl.<task>.verdicts.<region>[p]     one Verdict an offset
        ├─▶ object store                       a closed window's sums and state, by SHA-256
        ├─▶ fl.<task>.aggregates.<region>[p]   one signed RegionalAggregate a closed window
        └─▶ fl.<task>.updates.<region>[p]      a Tick when the open window is old (timer: ask_for_ticks)

Workers of a region share its partitions by consumer group; any of them may join, leave or die at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path

import faust
from faust.types import TP

from adapters.faust_transport import create_app, raw_topic
from adapters.kafka import LogReader, LogRecord, LogWriter
from adapters.object_store import StoreUnavailable, open_object_store
from adapters.patience import patiently
from adapters.settings import Settings
from adapters.task_store import TaskStore
from aggregation.errors import ConnectionProblem, UsageProblem
from schemas.certificates import Identity, Role, Trust
from schemas.envelope import Signer
from schemas.topics import updates_topic
from stream_apps.credentials import own_identity, require_valid
from stream_apps.partition import Outside, PartitionWorker

TICK_EVERY_S = 0.25
OVERHEAD_BYTES = 2048

log = logging.getLogger("fluvial.worker")


def build_app(
    settings: Settings,
    *,
    task: str,
    region: str,
    name: str,
    genesis_sha256: str,
    signer: Signer,
    data_folder: Path,
) -> faust.App:
    """The Faust app of one worker process. Reads the genesis document, and waits for the store if it is away."""
    outside = open_outside(settings, task, genesis_sha256, signer, name)
    if region not in outside.genesis.regions:
        raise unknown_region(task, region, outside.genesis.regions)
    identity = own_identity(signer, outside.trust, region=region, role=Role.WORKER)
    require_valid(identity)
    topic_name = updates_topic(task, region)
    workers: dict[int, PartitionWorker] = {}

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        offsets = {}
        for tp in sorted(assigned):
            worker = workers.setdefault(tp.partition, PartitionWorker(outside, region, tp.partition))
            offsets[tp] = await worker.resume()
        log.info(
            "worker %s has %s",
            name,
            ", ".join(f"{tp.partition}@{offset}" for tp, offset in offsets.items()) or "nothing",
        )
        return offsets

    app = create_app(
        f"fluvial-{task}-{region}",
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=outside.layout.parameters + OVERHEAD_BYTES,
    )

    @app.agent(raw_topic(app, topic_name), isolated_partitions=True, name=f"fold_{region}")
    async def fold_region(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            message = event.message
            record = LogRecord(
                topic_name,
                message.partition,
                message.offset,
                round(message.timestamp * 1000),
                message.key,
                message.value,
            )
            await or_end(workers[message.partition].process(record))

    @app.timer(interval=TICK_EVERY_S)
    async def ask_for_ticks() -> None:
        mine = [workers[tp.partition] for tp in app.consumer.assignment() if tp.partition in workers]
        await or_end(_ask_for_ticks(mine, identity))
        outside.writer.poll()

    async def or_end(work: Awaitable[None]) -> None:
        """What waiting does not heal ends this process, loudly; another takes its partitions over."""
        try:
            await work
        except (UsageProblem, ConnectionProblem) as error:
            log.error("worker %s ends.\n%s", name, error)  # noqa: TRY400
            await app.crash(error)

    return app


async def _ask_for_ticks(workers: Iterable[PartitionWorker], identity: Identity) -> None:
    require_valid(identity)
    for worker in workers:
        await worker.tick()


def unknown_region(task: str, region: str, regions: Iterable[str]) -> UsageProblem:
    """FLV-3201: the task has no such region."""
    known = ", ".join(sorted(regions))
    return UsageProblem("FLV-3201", f"task {task} has no region {region!r}", hint=f"its regions are: {known}")


def open_outside(settings: Settings, task: str, genesis_sha256: str, signer: Signer, name: str) -> Outside:
    """Everything that the partitions of one worker share."""
    store = TaskStore(open_object_store(settings.store), task)
    genesis = patiently(
        "read the genesis document", lambda: store.genesis(genesis_sha256), (StoreUnavailable,)
    )
    return Outside(
        genesis=genesis,
        layout=genesis.tensor_layout,
        policy=genesis.first_policy,
        trust=Trust.from_pem(genesis.authorities),
        store=store,
        writer=LogWriter(settings, f"fluvial-{name}", give_up=False),
        signer=signer,
        open_reader=lambda purpose: LogReader(settings, f"fluvial-{name}-{purpose}"),
    )
