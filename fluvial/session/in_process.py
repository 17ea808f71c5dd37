"""A whole federation in this process: the workers' and the merger's own loops, over any log and store.

::

    whoever appends to the log ──▶ RegionWorker.process   one worker a region, records in offset order
                                        │ verdicts, objects, aggregates
                                        ▼
                                   MergeLoop.offer, merge_if_due
                                        │ manifest, barriers, announcements ──▶ the same log
                                        ▼
                                   Guardian.hear, guide_newest   where there is one: a guide ──▶ store, the same log

Nothing here decides anything: what a record means is the fold's, what makes a version the merge's. ``settle`` feeds
each what the others have appended until nobody has more to do, one call after another, so a run has one history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from aggregation.server.aggregates import Slot
from backends.clock import Clock
from backends.log import LogRecord, RecordReader, RecordWriter
from backends.memory.log import MemoryLog
from backends.observer import UNOBSERVED, Observer
from backends.store.task_store import TaskStore
from schemas.certificates import Trust
from schemas.envelope import KeyPair
from schemas.manifests import Genesis
from schemas.topics import aggregates_topic, models_topic, topics_of, updates_topic
from stream_apps.merger.loop import MergeLoop
from stream_apps.merger.merger import Merger
from stream_apps.process_context import ProcessContext
from stream_apps.worker.region import RegionWorker


def memory_log_of(genesis: Genesis, clock: Clock) -> MemoryLog:
    """An empty log with the task's topics."""
    topics = topics_of(genesis.task, genesis.partitions, guided=genesis.is_guided)
    return MemoryLog({topic.name: topic.partitions for topic in topics}, clock)


class Guardian(Protocol):
    """What makes guides: ``stream_apps.guardian.making.Making``."""

    def hear(self, record: LogRecord) -> None:
        """Take one record of the models topic."""
        ...

    def guide_newest(self) -> bool:
        """Make the guide of the newest version; False where there is nothing to do."""
        ...


class InProcessFederation:
    """A worker of every region and a merger. ``start`` it, then append to the log and ``settle``.

    ``open_reader`` takes what the reader is for. ``workers`` maps each region to its worker's keys. ``trust``: by what
    signatures are judged, None for the genesis' CAs. ``observer`` is told what the loops do.
    """

    def __init__(
        self,
        genesis: Genesis,
        store: TaskStore,
        *,
        writer: RecordWriter,
        open_reader: Callable[[str], RecordReader],
        workers: Mapping[str, KeyPair],
        merger: KeyPair,
        clock: Clock,
        trust: Trust | None = None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self.genesis = genesis
        self.store = store
        self.clock = clock
        self.trust = trust or genesis.trust
        self._observer = observer
        self._writer = writer
        self._open_reader = open_reader
        self.workers = {
            region: RegionWorker(self._context(f"worker-{region}", key_pair), region)
            for region, key_pair in workers.items()
        }
        self.merger = Merger(self._context("merger", merger))
        self._merging = MergeLoop(self.merger)
        self._folded: dict[Slot, int] = {}
        self._taken: dict[Slot, int] = dict.fromkeys(genesis.slots, 0)
        self._guardians: list[Guardian] = []
        self._heard = 0
        self.away: set[str] = set()
        """Regions whose worker is away: nobody folds their logs meanwhile, and records go on to come."""

    def add_guardian(self, key_pair: KeyPair, make: Callable[[ProcessContext], Guardian]) -> None:
        """One that makes a guide of every version that is announced from ``start`` on."""
        self._guardians.append(make(self._context("guardian", key_pair)))

    def _context(self, name: str, key_pair: KeyPair) -> ProcessContext:
        return ProcessContext.of(
            genesis=self.genesis,
            store=self.store,
            writer=self._writer,
            key_pair=key_pair,
            name=name,
            open_reader=self._open_reader,
            trust=self.trust,
            clock=self.clock,
            observer=self._observer,
        )

    async def start(self) -> None:
        """Resume workers and merger where log and store say, and settle."""
        await self.resume_workers()
        self._taken = dict(await self._merging.resume())
        await self.settle()

    async def resume_workers(self) -> Mapping[Slot, int]:
        """Where every partition goes on to be folded."""
        for region, worker in self.workers.items():
            offsets = await worker.resume(range(self.genesis.regions[region].partitions))
            self._folded |= {(region, partition): offset for partition, offset in offsets.items()}
        return dict(self._folded)

    async def settle(self) -> None:
        """Fold, merge and tell until nobody has more to do at this time of the clock."""
        while True:
            self.guide()
            await self.fold()
            await self.take()
            if not await self.merge_if_due():
                return

    async def fold(self) -> None:
        """Give every worker the records that it has not folded. Raises what stopped a partition."""
        with self._open_reader("fold") as reader:
            for slot, offset in self._folded.items():
                if slot[0] in self.away:
                    continue
                topic = updates_topic(self.genesis.task, slot[0])
                _, end = reader.bounds(topic, slot[1])
                if records := tuple(reader.read(topic, slot[1], offset, end)):
                    await self.workers[slot[0]].process_all(records)
                self._folded[slot] = end
                stopped = self.workers[slot[0]].partitions[slot[1]].stopped
                if stopped is not None:
                    raise stopped
        self._writer.flush()

    async def take(self) -> None:
        """Give the merger the windows that it has not taken."""
        with self._open_reader("take") as reader:
            for slot, offset in self._taken.items():
                topic = aggregates_topic(self.genesis.task, slot[0])
                _, end = reader.bounds(topic, slot[1])
                for record in reader.read(topic, slot[1], offset, end):
                    await self._merging.offer(record, slot[0])
                self._taken[slot] = end

    def guide(self) -> None:
        """Let the guardians make the guide of the newest version."""
        if not self._guardians:
            return
        topic = models_topic(self.genesis.task)
        with self._open_reader("guide") as reader:
            _, end = reader.bounds(topic, 0)
            for record in reader.read(topic, 0, self._heard, end):
                for guardian in self._guardians:
                    guardian.hear(record)
        self._heard = end
        for guardian in self._guardians:
            guardian.guide_newest()

    async def merge_if_due(self) -> bool:
        """Let the merger make the next version; False if it is not due at this time of the clock."""
        before = self.merger.head.number
        await self._merging.merge_if_due()
        return self.merger.head.number > before

    async def tick(self) -> None:
        """Let the workers close windows that are old by the clock."""
        for region in sorted(self.workers.keys() - self.away):
            worker = self.workers[region]
            await worker.tick(range(self.genesis.regions[region].partitions))
        self._writer.flush()

    @property
    def folded(self) -> Mapping[Slot, int]:
        """The offset of each updates log before which all is folded."""
        return dict(self._folded)

    @property
    def taken(self) -> Mapping[Slot, int]:
        """The offset of each aggregates log before which the merger has taken all."""
        return dict(self._taken)

    @property
    def updates_waiting(self) -> int:
        """Accepted updates that no version holds yet: in open windows, and in windows that wait."""
        states = (one.state for worker in self.workers.values() for one in worker.partitions.values())
        return sum(state.window.accepted for state in states) + self.merger.pending.updates
