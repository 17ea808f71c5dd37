"""What one request may read: a log and a store that count, and raise before they would give more than one page.

Only reading methods exist here, so that whatever gets these objects can write nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aggregation.errors import ConnectionProblem
from fluvial.console.limits import PAGE_OBJECTS, PAGE_RECORDS, PAGE_SECONDS
from fluvial.console.problems import budget_spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backends.log import LogRecord
    from backends.object_store import ObjectStore


class Log(Protocol):
    """What the console needs of a log."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last)."""
        ...

    def follow(
        self, starts: Mapping[tuple[str, int], int], *, timeout_s: float | None = None
    ) -> Iterator[LogRecord | None]:
        """Records from the given offsets on; None while there is none."""
        ...


@dataclass
class Budget:
    """Counts records and objects; raises FLV-6509 before a count would pass its bound."""

    records_max: int = PAGE_RECORDS
    objects_max: int = PAGE_OBJECTS
    seconds_max: float = PAGE_SECONDS
    records: int = 0
    objects: int = 0

    @property
    def records_left(self) -> int:
        """How many records may still be read."""
        return self.records_max - self.records

    @property
    def objects_left(self) -> int:
        """How many objects may still be asked for."""
        return self.objects_max - self.objects

    def take_records(self, count: int) -> None:
        """Spend some; raises before any of them is read."""
        if self.records + count > self.records_max:
            raise budget_spent("records", self.records_max)
        self.records += count

    def take_object(self) -> None:
        """Spend one; raises before it is read."""
        if self.objects >= self.objects_max:
            raise budget_spent("objects", self.objects_max)
        self.objects += 1


class PagedLog:
    """A log under a budget."""

    def __init__(self, log: Log, budget: Budget) -> None:
        self._log = log
        self.budget = budget
        self._deadline_s = time.monotonic() + budget.seconds_max

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last)."""
        return self._log.bounds(topic, partition)

    def read(self, topic: str, partition: int, start: int, end: int) -> list[LogRecord]:
        """The records ``start`` to ``end`` - 1, all paid for before; an end beyond the log's is the log's.

        ConnectionProblem FLV-3100 where they do not come in time.
        """
        low, high = self.bounds(topic, partition)
        start, end = max(low, start), min(end, high)
        if start >= end:
            return []
        self.budget.take_records(end - start)
        found: list[LogRecord] = []
        for record in self._log.follow({(topic, partition): start}):
            if record is not None and record.offset < end:
                found.append(record)
            if record is not None and record.offset >= end - 1:
                return found
            if time.monotonic() > self._deadline_s:
                break
        raise ConnectionProblem(
            "FLV-3100",
            f"{topic}[{partition}] gave {len(found)} of {end - start} records within {self.budget.seconds_max:g} s",
            hint="see whether the broker runs with `fluvial doctor`",
        )


class PagedStore:
    """An object store under a budget, for reading: it has no method that writes."""

    def __init__(self, store: ObjectStore, budget: Budget) -> None:
        self._store = store
        self.budget = budget

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        self.budget.take_object()
        return self._store.get(key, bytes_max=bytes_max)

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        self.budget.take_object()
        return self._store.exists(key)

    def put(self, key: str, data: bytes) -> None:
        """Never."""
        raise ReadOnlyError(key, len(data))

    def create(self, key: str, data: bytes) -> bool:
        """Never."""
        raise ReadOnlyError(key, len(data))

    def list(self, prefix: str) -> Iterator[str]:
        """Never: a listing has no bound."""
        raise ReadOnlyError(prefix, 0)

    def describe(self) -> str:
        """One line for humans, without secrets."""
        return self._store.describe()


class ReadOnlyError(AssertionError):
    """A defect: the console tried to write, or to list without a bound."""

    def __init__(self, key: str, size_bytes: int) -> None:
        super().__init__(f"the console reads pages only: {key}, {size_bytes} bytes")
