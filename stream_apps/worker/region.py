"""A worker of one region without its framework: which partitions it has, and what it does with their records.

Faust drives it in production (``regional_worker``), the seeded scheduler in ``tests/simulation``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from backends.log import LogRecord
from stream_apps.process_context import ProcessContext
from stream_apps.worker.outbox import HandedOn
from stream_apps.worker.partition import PartitionWorker

log = logging.getLogger("fluvial.worker")


class RegionWorker:
    """The partitions of one region, or edge, that this process has, or has had: one ``PartitionWorker`` each.

    ``handed_on`` gets every window, see ``outbox``.
    """

    def __init__(self, context: ProcessContext, region: str, handed_on: HandedOn | None = None) -> None:
        self._handed_on = handed_on
        self.context = context
        self.region = region
        self.partitions: dict[int, PartitionWorker] = {}

    async def resume(self, assigned: Iterable[int]) -> Mapping[int, int]:
        """Where each assigned partition goes on. Idempotent: it is asked again whenever the flow was paused."""
        mine = sorted(assigned)
        for partition in mine:
            if partition not in self.partitions:
                self.partitions[partition] = PartitionWorker(
                    self.context, self.region, partition, self._handed_on
                )
        found = await asyncio.gather(*(self.partitions[partition].resume() for partition in mine))
        offsets = dict(zip(mine, found, strict=True))
        self.context.observer.assigned(self.region, mine)
        log.info(
            "worker %s has %s",
            self.context.name,
            ", ".join(f"{partition}@{offset}" for partition, offset in offsets.items()) or "nothing",
        )
        return offsets

    async def process(self, record: LogRecord) -> None:
        """Fold one record of an assigned partition; ConnectionProblem where only a fresh process may do better."""
        await self.process_all((record,))

    async def process_all(self, records: Sequence[LogRecord]) -> None:
        """The same for records of one partition that came together."""
        await self.partitions[records[0].partition].process_all(records)

    async def tick(self, assigned: Iterable[int]) -> None:
        """Close windows that are old, by a Tick in their log, and take acknowledgements in.

        Call it a few times a second.
        """
        for partition in assigned:
            if partition in self.partitions:
                await self.partitions[partition].tick()
        self.context.writer.poll()
