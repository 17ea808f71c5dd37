"""The evaluator.

::

    fl.<task>.models                    announcements of all regions
        │  follow: one actor
        ▼
    Evaluation.catch_up(version)        every version not evaluated yet: load, evaluate on held-out data
        └─▶ fl.<task>.metrics           one flat JSON object a version

Users' code runs in a process beside it (``bench``): a version on which it fails, hangs or ends that process is
published as such, and the next one is evaluated. It resumes at the newest evaluation that stands in the metrics topic,
so no version is left out or published twice (but for a crash between two appends, where readers keep the first by
version). What stands there is told to the observer, too: its metrics go on where those of the process before ended.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import faust
from faust.types import TP

from aggregation.errors import FluvialError
from backends.kafka.faust.transport import create_app, raw_topic, records_in
from backends.log import LogRecord
from backends.object_store import StoreUnavailable
from backends.observer import UNOBSERVED, Observer
from backends.outages import retry_through_outage
from backends.programs import find_program
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from schemas.access import own_group
from schemas.manifests import Genesis
from schemas.topics import models_topic
from stream_apps.evaluator.evaluation import Evaluation
from stream_apps.evaluator.limits import EVALUATION_S_MAX
from stream_apps.running import tell

ANNOUNCEMENT_BYTES: Final = 2048

log = logging.getLogger("fluvial.evaluator")


def build_app(
    settings: Settings,
    *,
    task: str,
    name: str,
    genesis_sha256: str,
    reference_here: str,
    data: str = "",
    data_folder: Path,
    seconds_max: float = EVALUATION_S_MAX,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of the evaluator; ``reference_here`` is where this machine's task.json says that its code is.

    ``data``: of held-out examples of one's own. ``seconds_max``: how long one version's evaluation may take.
    """
    store = TaskStore(open_object_store(settings.store, observer), task)
    genesis = retry_through_outage(
        "read the genesis document", lambda: store.genesis(genesis_sha256), (StoreUnavailable,)
    )
    reference = _program(settings, store, genesis, reference_here)
    evaluation = Evaluation(
        settings, store, genesis, reference, name, data=data, seconds_max=seconds_max, observer=observer
    )
    evaluation.catch_up(0)
    turn = asyncio.Lock()

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        observer.adopted(evaluation.evaluated, genesis.partitions)
        # Announcements are small, and all but the new ones are passed over at once.
        return dict.fromkeys(assigned, 0)

    app = create_app(
        own_group(task, "evaluator", f"{name}-{uuid.uuid4().hex[:8]}"),
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=ANNOUNCEMENT_BYTES,
    )

    tell(app, observer)

    async def leave(*_: object, **__: object) -> None:
        await asyncio.to_thread(evaluation.close)

    app.on_before_shutdown.connect(leave)

    async def take(record: LogRecord) -> None:
        async with turn:
            await asyncio.to_thread(evaluation.take, record)

    @app.agent(raw_topic(app, models_topic(task)), name="follow")
    async def follow(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            try:
                for record in records_in(event.message):
                    await asyncio.shield(asyncio.create_task(take(record)))
            except Exception as error:
                known = isinstance(error, FluvialError)
                log.error(  # noqa: TRY400
                    "the evaluator stops after version %d.\n%s",
                    evaluation.evaluated,
                    error,
                    exc_info=not known,
                    extra={"version": evaluation.evaluated},
                )
                await app.crash(error)

    return app


def _program(settings: Settings, store: TaskStore, genesis: Genesis, reference_here: str) -> str:
    return retry_through_outage(
        "read the task's program",
        lambda: find_program(settings.home, genesis, store.get_object, reference_here, say=log.warning),
        (StoreUnavailable,),
    )
