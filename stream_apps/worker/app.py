"""The regional worker.

::

    fl.<task>.updates.<region>[p]     signed envelopes: ClientUpdate, Barrier, Tick, Revoke, Skip, Pardon
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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import faust
from faust.types import TP

from aggregation.codecs import VALUE_BYTES
from aggregation.errors import AccessProblem, ConnectionProblem, UsageProblem
from backends.kafka.faust.transport import create_app, raw_topic, records_in
from backends.kafka.topic_settings import await_right_topics
from backends.observer import UNOBSERVED, Observer
from backends.settings import Settings
from schemas.access import worker_group
from schemas.certificates import Identity, Role
from schemas.envelope import KeyPair
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from stream_apps.credentials import own_identity, require_valid
from stream_apps.process_context import open_process_context
from stream_apps.running import tell
from stream_apps.worker.region import RegionWorker

TICK_EVERY_S: Final = 0.25
OVERHEAD_BYTES: Final = 2048

log = logging.getLogger("fluvial.worker")


def build_app(
    settings: Settings,
    *,
    task: str,
    region: str,
    name: str,
    genesis_sha256: str,
    key_pair: KeyPair,
    data_folder: Path,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of one worker process. Reads the genesis document, and waits for the store if it is away."""
    context = open_process_context(settings, task, genesis_sha256, key_pair, name, observer=observer)
    if region not in context.genesis.regions:
        raise unknown_region(task, region, context.genesis.regions)
    identity = own_identity(key_pair, context.trust, region=region, role=Role.WORKER)
    require_valid(identity)
    worker = RegionWorker(context, region)
    return app_of(worker, settings, identity, data_folder=data_folder)


def app_of(
    worker: RegionWorker,
    settings: Settings,
    identity: Identity,
    *,
    data_folder: Path,
    assigned_to: Callable[[bool], Awaitable[None]] | None = None,
) -> faust.App:
    """The Faust app around a region's worker, or an edge's.

    ``assigned_to`` is awaited before partitions are resumed, with whether there are any.
    """
    context, region = worker.context, worker.region
    task, name, observer = context.genesis.task, context.name, context.observer
    topic_name = updates_topic(task, region)
    await_right_topics(settings, [topic_name, verdicts_topic(task, region), aggregates_topic(task, region)])

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        mine = [tp.partition for tp in assigned]
        if assigned_to is not None:
            await assigned_to(bool(mine))
        offsets = await worker.resume(mine)
        return {TP(topic_name, partition): offset for partition, offset in offsets.items()}

    app = create_app(
        worker_group(task, region),
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=context.layout.trainable.parameters
        + VALUE_BYTES * context.layout.buffers.parameters
        + OVERHEAD_BYTES,
        member_name=name,
        stops_partitions=True,
    )

    tell(app, observer)

    @app.agent(raw_topic(app, topic_name), isolated_partitions=True, name=f"fold_{region}")
    async def fold_region(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            await or_end(worker.process_all(records_in(event.message)))

    @app.timer(interval=TICK_EVERY_S)
    async def ask_for_ticks() -> None:
        await or_end(tick())

    async def tick() -> None:
        require_valid(identity)
        await worker.tick(tp.partition for tp in app.consumer.assignment())

    async def or_end(work: Awaitable[None]) -> None:
        """Where waiting does not help this process ends, and says so; another takes its partitions over."""
        try:
            await work
        except (UsageProblem, ConnectionProblem, AccessProblem) as error:
            log.error("worker %s ends.\n%s", name, error)  # noqa: TRY400
            await app.crash(error)

    return app


def unknown_region(task: str, region: str, regions: Iterable[str]) -> UsageProblem:
    """FLV-3201: the task has no such region."""
    known = ", ".join(sorted(regions))
    return UsageProblem("FLV-3201", f"task {task} has no region {region!r}", hint=f"its regions are: {known}")
