"""What workers, mergers and devices need of a log: appending with confirmation, reading ranges.

``backends.kafka`` is the one implementation in production; ``backends.memory`` keeps a log in memory, and
``tests/simulation`` another under a seeded scheduler.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, Self

from aggregation.errors import FluvialError, IntegrityProblem

FLUSH_TIMEOUT_S: Final = 10.0
"""How long one wait for acknowledgements lasts before the waiting is said aloud and begun again."""


Headers = tuple[tuple[str, bytes], ...]
"""A record's Kafka headers. Nothing that is decided depends on them: no signature covers them."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as it stands in the log. ``timestamp_ms`` is its LogAppendTime."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record as it is to stand in the log."""

    key: bytes | None
    value: bytes
    headers: Headers = ()


class Together:
    """Records that were appended at once: how many the broker has yet to answer for, and which were refused.

    Answers come from any thread, one for each record; what comes after the last one changes nothing.
    """

    def __init__(self, records: Sequence[Outgoing]) -> None:
        self.unanswered = len(records)
        self._records = records
        self._refused: list[tuple[Outgoing, FluvialError]] = []
        self._lock = threading.Lock()

    @property
    def refused(self) -> Sequence[tuple[Outgoing, FluvialError]]:
        """What was not taken so far, and why."""
        return self._refused

    @property
    def unsafe(self) -> int:
        """Records that are not known to stand in the log."""
        return self.unanswered + len(self._refused)

    def answer(self, record: Outgoing | None = None, problem: FluvialError | None = None) -> bool:
        """The answer for one record, which is named where there is a ``problem``. Whether it was the last answer."""
        with self._lock:
            if not self.unanswered:
                return False
            if record is not None and problem is not None:
                self._refused.append((record, problem))
            self.unanswered -= 1
            return not self.unanswered

    def fail(self, problem: FluvialError) -> None:
        """No more answers will come. Records are taken in their order, so the last ones are those without."""
        with self._lock:
            answered = [(one.key, one.value) for one, _ in self._refused]
            others = [one for one in self._records if (one.key, one.value) not in answered]
            self._refused += [(one, problem) for one in others[len(others) - self.unanswered :]]
            self.unanswered = 0


@dataclass(frozen=True, slots=True)
class UnreadableRecord(LogRecord):
    """Stands for the rest of a partition that cannot be read on from here; ``problem`` says why.

    A consumer that has other partitions gets it in the place of a record: it is not the end of the others.
    """

    problem: IntegrityProblem = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the broker put an appended record."""

    topic: str
    partition: int
    offset: int


class RecordWriter(Protocol):
    """Appends records, each producer's in order, each at most once (an idempotent producer)."""

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        """Begin to append one record; it is safe when the future resolves. -1 lets the key choose (murmur2)."""
        ...

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        """Begin to append records to one partition, in their order.

        Nothing is raised: what is refused at once is among ``refused``, as what the broker refuses later.
        """
        ...

    def append_now(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Position:
        """Append one record and wait until the broker has it."""
        ...

    def poll(self) -> None:
        """Resolve the futures that are due."""
        ...

    def flush(self, timeout_s: float = ...) -> None:
        """Wait until every record was delivered or has failed; TimeoutProblem (FLV-3102) after ``timeout_s``."""
        ...


def append_each(writer: RecordWriter, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
    """``append_together`` of a writer that has nothing to gain from it."""
    together = Together(records)

    def answered(record: Outgoing, future: Future[Position]) -> None:
        problem = future.exception()
        assert problem is None or isinstance(problem, FluvialError), problem
        together.answer(record, problem)

    for record in records:
        try:
            future = writer.append(
                topic, record.value, key=record.key, partition=partition, headers=record.headers
            )
        except FluvialError as error:
            together.answer(record, error)
        else:
            future.add_done_callback(partial(answered, record))
    return together


class RecordReader(Protocol):
    """Reads partitions from offsets that the caller names; belongs to no group, commits nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last offset) of a partition."""
        ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """The records ``start`` to ``end`` - 1, in order; IntegrityProblem FLV-3101 where ``start`` was deleted."""
        ...

    def last(self, topic: str, partition: int) -> LogRecord | None:
        """The newest record of a partition; None when it is empty."""
        ...


class TopicReader(RecordReader, Protocol):
    """One that can also say whether there is a topic."""

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; UsageProblem (FLV-3103) when there is no such topic."""
        ...
