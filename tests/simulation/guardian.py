"""A guardian of a simulated federation: the real one but for the training, which a seeded direction stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from aggregation.codecs import direction_of
from aggregation.errors import FluvialError
from learning.config import TrainConfig
from schemas.checkpoints import decode_model
from schemas.guides import signed_guide
from schemas.topics import models_topic
from stream_apps.guardian.making import Making

if TYPE_CHECKING:
    from schemas.records import Announcement
    from stream_apps.process_context import ProcessContext
    from tests.simulation.memory_log import MemoryLog
    from tests.simulation.scheduler import Process

LOOK_EVERY_S: Final = 0.4
EXAMPLES: Final = 8


class SeededMaking(Making):
    """A version's guide is a function of its model's hash, as that of the real one is of the model."""

    def __init__(self, context: ProcessContext) -> None:
        super().__init__(context, cast("Any", None), cast("Any", None), train_config=TrainConfig())

    def _guide(self, announced: Announcement) -> bytes:
        context, layout = self._context, self._context.layout
        # It is read, as for a training: what is not there yet is waited for.
        decode_model(context.store.model_bytes(announced.version, announced.model_sha256), layout)
        rng = np.random.default_rng(int(announced.model_sha256[:16], 16))
        values = rng.normal(0.05, 0.1, layout.trainable.parameters)  # as devices' updates lean
        return signed_guide(
            context.signer,
            task=context.genesis.task,
            version=announced.version,
            model_sha256=announced.model_sha256,
            examples=EXAMPLES,
            direction=direction_of(values, layout.trainable),
        )


class SimulatedGuardian:
    """One process of a guardian, for as long as it lives."""

    def __init__(self, context: ProcessContext, process: Process, log: MemoryLog) -> None:
        self._context = context
        self._process = process
        self._log = log

    async def live(self, failed: Callable[[Exception], None]) -> None:
        """Resume, then follow announcements and make guides; ``failed`` gets what ends it."""
        process = self._process
        making = SeededMaking(self._context)
        try:
            await process.thread(making.resume)
            process.start_task(self._follow(making))
            while True:
                await process.thread(making.guide_newest)
                await process.sleep(LOOK_EVERY_S)
        except FluvialError as error:
            failed(error)

    async def _follow(self, making: Making) -> None:
        place = (models_topic(self._context.genesis.task), 0)
        while True:
            await self._log.more(place, making.heard, self._process)
            for record in self._log.records[place][making.heard :]:
                making.hear(record)
