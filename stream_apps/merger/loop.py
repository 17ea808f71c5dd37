"""A merger without its framework: its calls on a thread, one at a time, each to its end.

Faust drives it in production (``merger``), the seeded scheduler in ``tests/simulation``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from aggregation.server.aggregates import Slot
from backends.log import LogRecord
from backends.outages import Result
from stream_apps.merger.merger import Merger


class MergeLoop:
    """Takes aggregates and makes versions when they are due. It raises only what does not pass by waiting."""

    def __init__(self, merger: Merger) -> None:
        self.merger = merger
        self._turn = asyncio.Lock()

    async def resume(self) -> Mapping[Slot, int]:
        """Where each slot's aggregates topic goes on; the first call adopts the head and finishes it."""
        return await self._shielded(self.merger.resume)

    async def offer(self, record: LogRecord, region: str) -> None:
        """Take one record of the aggregates topic of ``region``."""
        await self._shielded(partial(self.merger.offer, record, region))

    async def merge_if_due(self) -> None:
        """Commit the next version if it is due, and tell everybody."""
        await self._shielded(self.merger.merge_if_due)

    async def _shielded(self, call: Callable[[], Result]) -> Result:
        """Turn and all: a cancelled caller must not let a second call in beside the first."""

        async def run() -> Result:
            async with self._turn:
                return await asyncio.to_thread(call)

        return await asyncio.shield(asyncio.create_task(run()))
