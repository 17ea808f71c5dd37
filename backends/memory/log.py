"""A log in memory: topics of partitions, each a list of records in order. Thread-safe; kept until it is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Self

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.partitioning import murmur2
from backends.clock import SYSTEM_CLOCK, Clock
from backends.log import FLUSH_TIMEOUT_S, Headers, LogRecord, Outgoing, Position, Together, append_each

Place = tuple[str, int]
WAIT_S: Final = 0.25


class MemoryLog:
    """The broker's part: every partition's records. ``partitions`` maps each topic to their number."""

    def __init__(self, partitions: Mapping[str, int], clock: Clock = SYSTEM_CLOCK) -> None:
        self.partitions = dict(partitions)
        self._clock = clock
        self._records: dict[Place, list[LogRecord]] = {
            (topic, number): [] for topic, count in self.partitions.items() for number in range(count)
        }
        self._first: dict[Place, int] = {}
        self._appended = threading.Condition()

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes, headers: Headers
    ) -> Position:
        """Put a record at the end; its time is the clock's. UsageProblem FLV-3103 where there is no such partition."""
        now_ms = round(self._clock.time() * 1000)
        with self._appended:
            records = self._of(topic, partition)
            offset = self._first.get((topic, partition), 0) + len(records)
            records.append(LogRecord(topic, partition, offset, now_ms, key, value, headers))
            self._appended.notify_all()
            return Position(topic, partition, offset)

    def load(self, record: LogRecord) -> None:
        """Put a record where it stood, with its own time: for logs that were kept elsewhere. FLV-3001 leaves no gap."""
        with self._appended:
            records = self._of(record.topic, record.partition)
            expected = self._first.get((record.topic, record.partition), 0) + len(records)
            if record.offset != expected:
                raise _gap(record.topic, record.partition, expected, record.offset)
            records.append(record)
            self._appended.notify_all()

    def end(self, topic: str, partition: int) -> int:
        """One past the last offset."""
        with self._appended:
            return self._first.get((topic, partition), 0) + len(self._of(topic, partition))

    def first(self, topic: str, partition: int) -> int:
        """The first offset that is not forgotten."""
        with self._appended:
            return self._first.get((topic, partition), 0)

    def record(self, topic: str, partition: int, offset: int) -> LogRecord:
        """One record; waits until it is there. FLV-3001 for one that is forgotten."""
        with self._appended:
            records = self._of(topic, partition)
            first = self._first.get((topic, partition), 0)
            while offset - first >= len(records):
                self._appended.wait(WAIT_S)
            if offset < first:
                raise _gap(topic, partition, first, offset)
            return records[offset - first]

    def forget_before(self, topic: str, partition: int, offset: int) -> None:
        """Let the records before ``offset`` go, as a broker's retention does; offsets stay what they are."""
        with self._appended:
            records = self._of(topic, partition)
            first = self._first.get((topic, partition), 0)
            gone = min(max(offset - first, 0), len(records))
            del records[:gone]
            self._first[topic, partition] = first + gone

    def _of(self, topic: str, partition: int) -> list[LogRecord]:
        try:
            return self._records[topic, partition]
        except KeyError:
            raise UsageProblem(
                "FLV-3103", f"there is no topic {topic}", hint="list the tasks with `fluvial task list`"
            ) from None


def _gap(topic: str, partition: int, expected: int, got: int) -> IntegrityProblem:
    return IntegrityProblem(
        "FLV-3001", f"gap in the log: expected offset {expected}, got {got}", where=f"{topic}[{partition}]"
    )


class MemoryWriter:
    """``RecordWriter`` on a ``MemoryLog``: every record is safe at once."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        """Append one record; the future is resolved."""
        future: Future[Position] = Future()
        future.set_result(self.append_now(topic, value, key=key, partition=partition, headers=headers))
        return future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        """Append records to one partition; all are answered for."""
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
        """Append one record; -1 lets the key choose (murmur2)."""
        number = partition if partition >= 0 else murmur2(key or b"") % self._log.partitions.get(topic, 1)
        return self._log.append(topic, number, key, value, headers)

    def poll(self) -> None:
        """Nothing is under way."""

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Nothing is under way."""


class MemoryReader:
    """``RecordReader`` on a ``MemoryLog``."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(the first offset that is not forgotten, one past the last)."""
        return self._log.first(topic, partition), self._log.end(topic, partition)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """The records ``start`` to ``end`` - 1, in order. Waits for records that are not there yet."""
        for offset in range(start, end):
            yield self._log.record(topic, partition, offset)

    def last(self, topic: str, partition: int) -> LogRecord | None:
        """The newest record of a partition; None when it is empty."""
        end = self._log.end(topic, partition)
        return (
            self._log.record(topic, partition, end - 1) if end > self._log.first(topic, partition) else None
        )

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; UsageProblem (FLV-3103) when there is no such topic."""
        self._log.end(topic, 0)
        return list(range(self._log.partitions[topic]))
