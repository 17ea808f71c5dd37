"""The global merger.

::

    fl.<task>.aggregates.<region>[p], all regions    signed RegionalAggregate records
        │  collect: one actor, any order between partitions
        ▼
    Merger.offer                                     authenticate → pending, in sequence by partition
        │  merge_when_due (task): FedBuff's K reached, or the deadline passed
        ▼
    Merger.merge_if_due                              Σ sums → server optimizer → manifest by one conditional PUT
        ├─▶ object store      versions/<n>/manifest.json, then model and optimizer
        ├─▶ fl.<task>.updates.<region>[p]   a Barrier in every partition of every region
        └─▶ fl.<task>.models                an announcement a region, after its barriers are acknowledged

Every merger reads all partitions, in a consumer group of its own: two at once race for the conditional PUT, and the
loser adopts the winner's head.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Final

import faust
from faust.types import TP

from backends.kafka.faust.transport import create_app, raw_topic, records_in
from backends.kafka.topic_settings import await_right_topics
from backends.observer import UNOBSERVED, LastScrape, Observer
from backends.outages import retry_through_outage
from backends.settings import Settings
from backends.store.conditional import require_conditional_writes
from schemas.access import own_group
from schemas.certificates import CONTROL, Role
from schemas.envelope import KeyPair
from schemas.topics import aggregates_topic, topics_of
from stream_apps.credentials import own_identity, require_valid
from stream_apps.merger.loop import MergeLoop
from stream_apps.merger.merger import Merger
from stream_apps.process_context import open_process_context
from stream_apps.running import say_stop, tell

MERGE_EVERY_S: Final = 0.1
DIVERGENCE: Final = frozenset({"FLV-3002", "FLV-3003"})
SHOWN_S_MAX: Final = 65.0
"""A little more than the longest interval between scrapes that the alerts are made for."""
SHOWN_POLL_S: Final = 0.25
AGGREGATE_BYTES: Final = 4096

log = logging.getLogger("fluvial.merger")


def build_app(
    settings: Settings,
    *,
    task: str,
    name: str,
    genesis_sha256: str,
    key_pair: KeyPair,
    data_folder: Path,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of one merger process. Reads the genesis document, and waits for the store if it is away."""
    context = open_process_context(settings, task, genesis_sha256, key_pair, name, observer=observer)
    identity = own_identity(key_pair, context.trust, region=CONTROL, role=Role.MERGER)
    require_valid(identity)
    table = topics_of(task, context.genesis.partitions, guided=context.genesis.is_guided)
    await_right_topics(settings, [topic.name for topic in table])
    retry_through_outage(
        "try the store's conditional writes", lambda: require_conditional_writes(context.store)
    )
    loop = MergeLoop(Merger(context))
    regions = {aggregates_topic(task, region): region for region in context.genesis.partitions}

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        offsets = await loop.resume()
        return {tp: offsets[(regions[tp.topic], tp.partition)] for tp in assigned}

    app = create_app(
        own_group(task, "merger", f"{name}-{uuid.uuid4().hex[:8]}"),
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=AGGREGATE_BYTES,
    )

    tell(app, observer)
    stopped = asyncio.Event()

    async def or_end(work: Awaitable[None]) -> None:
        """What does not pass by waiting ends this merger, and is said."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 (it is said, and ends the process)
            stopped.set()  # which of two windows is the right one must not be decided by which came first
            say_stop(log, "the merger stops at version %d.\n%s", loop.merger.head.number, error)
            await _be_seen(observer, error)
            await app.crash(error)

    async def merge_if_due() -> None:
        require_valid(identity)
        await loop.merge_if_due()

    @app.agent(raw_topic(app, *regions), name="collect")
    async def collect(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            for record in records_in(event.message):
                await or_end(loop.offer(record, regions[record.topic]))

    @app.task
    async def merge_when_due() -> None:
        while not (app.should_stop or stopped.is_set()):
            await or_end(merge_if_due())
            await app.sleep(MERGE_EVERY_S)

    return app


async def _be_seen(observer: Observer, error: Exception) -> None:
    """Let a scrape see a divergence: it is a proof, and a process that is gone shows nothing."""
    last_scrape = LastScrape()
    observer.merger_stopped(error, last_scrape)
    if getattr(error, "error_id", "") not in DIVERGENCE:
        return
    deadline_s = time.monotonic() + SHOWN_S_MAX
    # It is shown on the thread of a scrape, which knows no event of this loop.
    while last_scrape.awaited and not last_scrape.shown and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(SHOWN_POLL_S)
