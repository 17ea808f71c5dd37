"""A whole federation in this process: the workers' and the merger's own loops, over a log and a store in memory.

::

    whoever appends to the log ──▶ RegionWorker.process   one worker a region, records in offset order
                                        │ verdicts, objects, aggregates
                                        ▼
                                   MergeLoop.offer, merge_if_due
                                        │ manifest, barriers, announcements ──▶ the same log

Nothing here decides anything: what a record means is the fold's, what makes a version the merge's. ``settle`` feeds
each what the others have appended until nobody has more to do, one call after another, so a run has one history.
"""

from __future__ import annotations

from collections.abc import Mapping

from aggregation.server.aggregates import Slot
from backends.clock import Clock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.store.task_store import TaskStore
from schemas.certificates import Trust
from schemas.envelope import Signer
from schemas.manifests import Genesis
from schemas.topics import aggregates_topic, topics_of, updates_topic
from stream_apps.merger.loop import MergeLoop
from stream_apps.merger.merger import Merger
from stream_apps.process_context import ProcessContext
from stream_apps.worker.region import RegionWorker


def memory_log_of(genesis: Genesis, clock: Clock) -> MemoryLog:
    """An empty log with the task's topics."""
    topics = topics_of(genesis.task, genesis.partitions)
    return MemoryLog({topic.name: topic.partitions for topic in topics}, clock)


class InProcessFederation:
    """A worker of every region and a merger. ``start`` it, then append to ``log`` and ``settle``.

    ``workers`` maps each region to its worker's signer.
    """

    def __init__(
        self,
        genesis: Genesis,
        log: MemoryLog,
        store: TaskStore,
        *,
        workers: Mapping[str, Signer],
        merger: Signer,
        clock: Clock,
    ) -> None:
        self.genesis = genesis
        self.log = log
        self.store = store
        self.clock = clock
        self.trust = Trust.from_pem(genesis.authorities)
        self.workers = {
            region: RegionWorker(self._context(f"worker-{region}", signer), region)
            for region, signer in workers.items()
        }
        self.merger = Merger(self._context("merger", merger))
        self._merging = MergeLoop(self.merger)
        self._folded: dict[Slot, int] = {}
        self._taken: dict[Slot, int] = {}

    def _context(self, name: str, signer: Signer) -> ProcessContext:
        return ProcessContext.of(
            genesis=self.genesis,
            store=self.store,
            writer=MemoryWriter(self.log),
            signer=signer,
            name=name,
            open_reader=lambda _purpose: MemoryReader(self.log),
            trust=self.trust,
            clock=self.clock,
        )

    async def start(self) -> None:
        """Resume workers and merger where log and store say, and settle."""
        for region, worker in self.workers.items():
            offsets = await worker.resume(range(self.genesis.regions[region].partitions))
            self._folded |= {(region, partition): offset for partition, offset in offsets.items()}
        self._taken = dict(await self._merging.resume())
        await self.settle()

    async def settle(self) -> None:
        """Fold, merge and tell until nobody has more to do at this time of the clock."""
        while True:
            await self.fold()
            await self.take()
            before = self.merger.head.number
            await self._merging.merge_if_due()
            if self.merger.head.number == before:
                return

    async def fold(self) -> None:
        """Give every worker the records that it has not folded."""
        for slot, offset in self._folded.items():
            topic = updates_topic(self.genesis.task, slot[0])
            end = self.log.end(topic, slot[1])
            for record in MemoryReader(self.log).read(topic, slot[1], offset, end):
                await self.workers[slot[0]].process(record)
            self._folded[slot] = end
            stopped = self.workers[slot[0]].partitions[slot[1]].stopped
            if stopped is not None:
                raise stopped

    async def take(self) -> None:
        """Give the merger the windows that it has not taken."""
        for slot, offset in self._taken.items():
            topic = aggregates_topic(self.genesis.task, slot[0])
            end = self.log.end(topic, slot[1])
            for record in MemoryReader(self.log).read(topic, slot[1], offset, end):
                await self._merging.offer(record, slot[0])
            self._taken[slot] = end

    async def tick(self) -> None:
        """Let the workers close windows that are old by the clock."""
        for region, worker in self.workers.items():
            await worker.tick(range(self.genesis.regions[region].partitions))

    @property
    def updates_waiting(self) -> int:
        """Accepted updates that no version holds yet: in open windows, and in windows that wait."""
        states = (one.state for worker in self.workers.values() for one in worker.partitions.values())
        return sum(state.window.accepted for state in states) + self.merger.pending.updates
