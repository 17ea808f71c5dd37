"""The global merger.

::

    fl.<task>.aggregates.<region>[p], all regions    signed RegionalAggregate records
        │  collect: one actor, any order between partitions
        ▼
    Committer.offer                                  authenticate → pending, in sequence by partition
        │  merge_when_due (task): FedBuff's K reached, or the deadline passed
        ▼
    Committer.merge_if_due                           Σ sums → server optimizer → manifest by one conditional PUT
        ├─▶ object store      versions/<n>/manifest.json, then model and optimizer
        ├─▶ fl.<task>.updates.<region>[p]   a Barrier in every partition of every region
        └─▶ fl.<task>.models                an announcement a region, after its barriers are acknowledged

Every merger reads all partitions, in a consumer group of its own: two at once race for the conditional PUT, and the
loser adopts the winner's head.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import faust
from faust.types import TP

from adapters.faust_transport import create_app, raw_topic
from adapters.kafka import LogRecord
from adapters.object_store import StoreUnavailable, open_object_store
from adapters.patience import patiently
from adapters.settings import Settings
from adapters.task_store import TaskStore
from aggregation.errors import FluvialError
from schemas.certificates import CONTROL, Role, Trust
from schemas.envelope import Signer
from schemas.topics import aggregates_topic
from stream_apps.committing import Committer
from stream_apps.credentials import own_identity, require_valid

MERGE_EVERY_S = 0.1
AGGREGATE_BYTES = 4096

log = logging.getLogger("fluvial.merger")


def build_app(
    settings: Settings, *, task: str, name: str, genesis_sha256: str, signer: Signer, data_folder: Path
) -> faust.App:
    """The Faust app of one merger process. Reads the genesis document, and waits for the store if it is away."""
    store = TaskStore(open_object_store(settings.store), task)
    genesis = patiently(
        "read the genesis document", lambda: store.genesis(genesis_sha256), (StoreUnavailable,)
    )
    identity = own_identity(signer, Trust.from_pem(genesis.authorities), region=CONTROL, role=Role.MERGER)
    require_valid(identity)
    committer = Committer(settings, store, genesis, signer, name)
    regions = {aggregates_topic(task, region): region for region in genesis.partitions}
    turn = asyncio.Lock()

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        async with turn:
            offsets = await asyncio.to_thread(committer.resume)
        return {tp: offsets[(regions[tp.topic], tp.partition)] for tp in assigned}

    app = create_app(
        f"fluvial-{task}-merger-{name}-{uuid.uuid4().hex[:8]}",
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=AGGREGATE_BYTES,
    )

    async def guarded(action: str, *arguments: object) -> None:
        """Run one committer call on a thread, one at a time; what it cannot heal ends this merger, loudly."""

        async def run() -> None:
            async with turn:
                require_valid(identity)
                await asyncio.to_thread(getattr(committer, action), *arguments)

        try:
            # Shielded, turn and all: a cancelled caller must not let a second call in beside the first.
            await asyncio.shield(asyncio.create_task(run()))
        except Exception as error:
            known = isinstance(error, FluvialError)
            log.error("the merger stops at version %d.\n%s", committer.head.number, error, exc_info=not known)  # noqa: TRY400
            await app.crash(error)

    @app.agent(raw_topic(app, *regions), name="collect")
    async def collect(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            message = event.message
            record = LogRecord(
                message.topic,
                message.partition,
                message.offset,
                round(message.timestamp * 1000),
                message.key,
                message.value,
            )
            await guarded("offer", record, regions[message.topic])

    @app.task
    async def merge_when_due() -> None:
        while not app.should_stop:
            await guarded("merge_if_due")
            await app.sleep(MERGE_EVERY_S)

    return app
