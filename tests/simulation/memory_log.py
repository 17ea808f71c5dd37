"""An in-memory log that keeps Kafka's promises and breaks only what Kafka may break.

Records of one producer stand in one partition in the order of their appending, each once. What is slow here: requests,
answers. What is lost: the answers of a device's producer, and what a process that dies had not yet sent. What is
refused: some records of a worker, each with an error for its answer.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Self

from aggregation.errors import ConnectionProblem, IntegrityProblem, TimeoutProblem
from aggregation.partitioning import murmur2
from backends.log import Headers, LogRecord, Outgoing, Position, Together, append_each
from tests.simulation.scheduler import Pause, Process, VirtualLoop

Place = tuple[str, int]
AWAY_RETRY_S = 0.2


class MemoryLog:
    """The broker: every topic's partitions, and whether it can be reached."""

    def __init__(self, loop: VirtualLoop, partitions: dict[str, int], epoch_ms: int) -> None:
        self.loop = loop
        self.partitions = partitions
        self.records: dict[Place, list[LogRecord]] = {
            (topic, number): [] for topic, count in partitions.items() for number in range(count)
        }
        self.away = False
        self.clock_jump_ms = 0
        self.order: dict[tuple[Place, int], int] = {}
        self._awaited: dict[Place, list[Callable[[], None]]] = {}
        self._epoch_ms = epoch_ms

    def append(self, place: Place, key: bytes | None, value: bytes, headers: Headers = ()) -> int:
        """Put a record at the end; its offset."""
        records = self.records[place]
        now_ms = self._epoch_ms + round(self.loop.now_s * 1000) + self.clock_jump_ms
        records.append(LogRecord(*place, len(records), now_ms, key, value, headers))
        self.order[place, len(records) - 1] = len(self.order)
        for tell in self._awaited.pop(place, ()):
            tell()
        return len(records) - 1

    @property
    def appended(self) -> int:
        """Records of all topics."""
        return len(self.order)

    async def more(self, place: Place, offset: int, process: Process) -> None:
        """Wait until a partition holds ``offset``."""
        if offset < len(self.records[place]):
            return
        future: asyncio.Future[None] = self.loop.create_future()

        def tell() -> None:
            process.later(process.latency_s(), lambda: None if future.done() else future.set_result(None))

        self._awaited.setdefault(place, []).append(tell)
        await future


class _UnderWay:
    """One record on its way. ``landed`` is its offset once the broker has it."""

    __slots__ = ("future", "headers", "key", "landed", "place", "value")

    def __init__(self, place: Place, key: bytes | None, value: bytes, headers: Headers) -> None:
        self.place = place
        self.headers = headers
        self.key = key
        self.value = value
        self.future: Future[Position] = Future()
        self.landed: int | None = None


class MemoryWriter:
    """``RecordWriter`` of one process.

    ``unsure`` is the probability that an acknowledgement is lost (devices only), ``refused`` that the broker does not
    take a record and says so (workers only).
    """

    def __init__(
        self,
        process: Process,
        log: MemoryLog,
        *,
        unsure: Callable[[], float] | None = None,
        refused: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._process = process
        self._log = log
        self._unsure = unsure
        self._refused = refused
        self._queues: dict[Place, deque[_UnderWay]] = {}
        self._waiting = 0
        self._flushing: list[Pause] = []
        process.on_death.append(self._died)

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        assert self._process.alive, "a dead process appends"
        self._process.trace(self._process.name, "append", topic, partition)
        number = partition if partition >= 0 else murmur2(key or b"") % self._log.partitions[topic]
        outgoing = _UnderWay((topic, number), key, value, headers)
        self._waiting += 1
        queue = self._queues.setdefault(outgoing.place, deque())
        queue.append(outgoing)
        if len(queue) == 1:
            self._process.later(self._process.latency_s(), lambda: self._send(queue))
        return outgoing.future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        return append_each(self, topic, records, partition=partition)

    def append_now(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Position:
        future = self.append(topic, value, key=key, partition=partition, headers=headers)
        self.flush()
        return future.result(timeout=0)

    def poll(self) -> None:
        """Nothing: answers come by themselves here."""

    def flush(self, timeout_s: float = 30.0) -> None:
        self._process.effect("flush")
        if not self._waiting:
            return
        pause = Pause(self._process)
        self._flushing.append(pause)
        if not pause.until_woken(timeout_s):
            self._flushing.remove(pause)
            raise TimeoutProblem("FLV-3102", f"{self._waiting} records were not acknowledged")

    def _send(self, queue: deque[_UnderWay]) -> None:
        """One request: some of a partition's records, in order; their answers come later. Partitions do not wait."""
        if self._log.away:
            self._process.later(AWAY_RETRY_S, lambda: self._send(queue))
            return
        rng = self._process.rng
        for _ in range(rng.randint(1, len(queue))):
            outgoing = queue.popleft()
            chance = self._refused()
            if not chance or rng.random() >= chance:
                self._land(outgoing)
            self._process.later(self._process.latency_s(), lambda outgoing=outgoing: self._answer(outgoing))  # type: ignore[misc]
        if queue:
            self._process.later(self._process.latency_s(), lambda: self._send(queue))

    def _land(self, outgoing: _UnderWay) -> None:
        outgoing.landed = self._log.append(outgoing.place, outgoing.key, outgoing.value, outgoing.headers)

    def _answer(self, outgoing: _UnderWay) -> None:
        self._waiting -= 1
        if not self._waiting:
            woken, self._flushing = self._flushing, []
            for pause in woken:
                pause.wake()
        if outgoing.landed is None:
            self._process.trace(self._process.name, "refused", *outgoing.place)
            outgoing.future.set_exception(ConnectionProblem("FLV-3100", "the broker refused the record"))
        elif self._unsure is not None and self._process.rng.random() < self._unsure():
            self._process.trace(self._process.name, "lost acknowledgement", outgoing.landed)
            outgoing.future.set_exception(ConnectionProblem("FLV-3100", "the acknowledgement was lost"))
        else:
            outgoing.future.set_result(Position(*outgoing.place, outgoing.landed))

    def _died(self) -> None:
        """Some of what was on its way still arrives."""
        for queue in self._queues.values():
            arriving = 0 if self._log.away else self._process.rng.randint(0, len(queue))
            for _ in range(arriving):
                self._land(queue.popleft())
            queue.clear()


class MemoryReader:
    """``RecordReader`` of one process."""

    def __init__(self, process: Process, log: MemoryLog) -> None:
        self._process = process
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _ask(self, what: str) -> None:
        self._process.effect(what)
        if self._log.away:
            raise ConnectionProblem("FLV-3100", "no broker answers")

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        self._ask("bounds")
        return 0, len(self._log.records[topic, partition])

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        if start >= end:
            return
        if start < 0:
            raise IntegrityProblem("FLV-3101", f"offset {start} was deleted")
        self._ask("read")
        records = self._log.records[topic, partition]
        while len(records) < end:
            self._process.block(0.1)
        yield from records[start:end]

    def last(self, topic: str, partition: int) -> LogRecord | None:
        _, end = self.bounds(topic, partition)
        return next(self.read(topic, partition, end - 1, end)) if end else None


def seeded(seed: int, what: str) -> random.Random:
    """A generator of its own for one part of a run: what one part draws does not change the others'."""
    return random.Random(f"{seed} {what}")
