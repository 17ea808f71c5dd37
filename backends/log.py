"""What workers, mergers and devices need of a log: appending with confirmation, reading ranges.

``backends.kafka`` is the one implementation in production; ``backends.memory`` keeps a log in memory, and
``tests/simulation`` another under a seeded scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol, Self

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
