"""A recorded order of arrivals, folded and merged anew by what ``fluvial run --simulate`` runs on.

Recorded are the records of the updates topics, as they stood, and which windows every version took. From a store with
nothing but version 0, the workers' and the merger's own loops have to make the same versions of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aggregation.fold.events import Barrier
from backends.log import LogRecord
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.session.in_process import InProcessFederation, memory_log_of
from schemas.envelope import KeyPair
from schemas.manifests import Genesis, Manifest
from schemas.objects import model_key, optimizer_key
from schemas.records import decode_record
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic


@dataclass(frozen=True)
class RecordedOrder:
    """What stood in a log and in its store. ``records`` gives a partition of a topic, whole.

    Of the store's versions only the choice of windows is taken, and what they have to come to.
    """

    genesis: Genesis
    store: TaskStore
    records: Callable[[str, int], Sequence[LogRecord]]

    @property
    def manifests(self) -> list[Manifest]:
        """Of version 1, 2, … to the head."""
        head = self.store.head()
        return [self.store.manifest(version) for version in range(1, head.version + 1 if head else 1)]


def made_again(recorded: RecordedOrder, *, workers: Mapping[str, KeyPair], merger: KeyPair) -> list[Manifest]:
    """The versions that come of ``recorded``, to its head or up to the first that differs.

    What was recorded behind that one belongs to another history: its barriers name objects that nobody has made.
    """
    return asyncio.run(_Replay(recorded, workers, merger).run())


class _Replay:
    def __init__(self, recorded: RecordedOrder, workers: Mapping[str, KeyPair], merger: KeyPair) -> None:
        self._recorded = recorded
        self._genesis = genesis = recorded.genesis
        self._waiting = {
            slot: list(recorded.records(updates_topic(genesis.task, slot[0]), slot[1]))
            for slot in genesis.slots
        }
        newest_ms = max(record.timestamp_ms for ahead in self._waiting.values() for record in ahead)
        self._clock = ManualClock(newest_ms / 1000)
        self._log = memory_log_of(genesis, self._clock)
        for region, partition in genesis.slots:
            # Verdicts: they say at which of two records a worker obeyed an operator's Skip.
            for topic in (updates_topic(genesis.task, region), verdicts_topic(genesis.task, region)):
                for record in recorded.records(topic, partition):
                    self._log.load(record)
        self._federation = InProcessFederation(
            genesis,
            self._first_version(),
            writer=MemoryWriter(self._log),
            open_reader=lambda _purpose: MemoryReader(self._log),
            workers=workers,
            merger=merger,
            clock=self._clock,
        )

    def _first_version(self) -> TaskStore:
        genesis, source = self._genesis, self._recorded.store.store
        store = TaskStore(MemoryStore(), genesis.task)
        store.put_object(genesis.first_policy.canonical())
        if genesis.model.frozen is not None:
            store.put_object(self._recorded.store.get_object(genesis.model.frozen.sha256))
        store.commit(0, genesis.canonical())
        store.write_checkpoint(
            0, source.get(model_key(genesis.task, 0)), source.get(optimizer_key(genesis.task, 0))
        )
        return store

    async def run(self) -> list[Manifest]:
        await self._federation.resume_workers()
        merger = self._federation.merger
        merger.resume()
        made: list[Manifest] = []
        for expected in self._recorded.manifests:
            await self._fold_until_barrier(expected.version)
            for window in expected.inputs:
                topic = aggregates_topic(self._genesis.task, window.region)
                assert window.sequence < self._log.end(topic, window.partition), f"no window {window}"
                merger.offer(self._log.record(topic, window.partition, window.sequence), window.region)
            self._clock.sleep(self._genesis.first_policy.buffer.seconds_max)
            merger.merge_if_due()
            made.append(self._federation.store.manifest(merger.head.number))
            if made[-1] != expected:
                break
        return made

    async def _fold_until_barrier(self, version: int) -> None:
        for (region, partition), ahead in self._waiting.items():
            worker = self._federation.workers[region]
            while ahead and self._barrier_version(ahead[0]) < version:
                await worker.process(ahead.pop(0))
                stopped = worker.partitions[partition].stopped
                if stopped is not None:
                    raise stopped

    def _barrier_version(self, record: LogRecord) -> int:
        """The version of an authentic Barrier; -1 for any other record."""
        event = decode_record(
            record.value, record.timestamp_ms, self._federation.trust, self._genesis.first_policy
        )
        return event.version if isinstance(event, Barrier) else -1
