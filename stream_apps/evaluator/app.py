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

from backends.kafka.faust.transport import create_app, raw_topic, records_in
from backends.log import LogRecord
from backends.observer import UNOBSERVED, Observer
from backends.settings import Settings
from schemas.access import own_group
from schemas.topics import models_topic
from stream_apps.evaluator.evaluation import Evaluation
from stream_apps.evaluator.limits import EVALUATION_S_MAX
from stream_apps.process_context import open_task
from stream_apps.running import say_stop, tell
from stream_apps.task_program import task_program

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
    store, genesis = open_task(settings, task, genesis_sha256, observer)
    reference = task_program(settings, store, genesis, reference_here, log)
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
            except Exception as error:  # noqa: BLE001 (it is said, and ends the process)
                say_stop(log, "the evaluator stops after version %d.\n%s", evaluation.evaluated, error)
                await app.crash(error)

    return app
