"""Reading ranges and tails of Kafka's partitions, by ``backends.kafka.batches`` as the workers do. Methods block."""

from __future__ import annotations

import concurrent.futures
import time
import weakref
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final, Self, TypeVar

from aggregation.errors import FluvialError, IntegrityProblem, TimeoutProblem
from backends.kafka.configuration import REQUEST_TIMEOUT_S
from backends.kafka.cursor import FRUITLESS_BACKOFF_S, Cursor, Whole
from backends.kafka.fetching import Fetched, OutOfRangeError, PartitionClient, Place
from backends.kafka.loop import SHARED, submit
from backends.kafka.problems import client_problem
from backends.log import LogRecord
from backends.settings import Settings

T = TypeVar("T")

POLL_S: Final = 0.25
FETCH_WAIT_MS: Final = 100


class LogReader:
    """Reads partitions from offsets that the caller names; belongs to no group, commits nothing."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._bootstrap = settings.bootstrap_servers
        self._client = PartitionClient(settings, client_id)
        self._loop = SHARED.use()
        self._close = weakref.finalize(self, SHARED.leave, self._loop, self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._close()

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last offset) of a partition."""
        return self._answer(self._client.bounds(topic, partition))

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; UsageProblem (FLV-3103) when there is no such topic."""
        return self._answer(self._client.partitions(topic))

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset at or after a time; the end of the log when there is none."""
        found = self._answer(self._client.offset_at(topic, partition, timestamp_ms))
        return found if found >= 0 else self.bounds(topic, partition)[1]

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """The records ``start`` to ``end`` - 1, in order. Waits for records that are not there yet.

        Every offset has one: where no record stands that can be read, it has no key and no value; see
        ``backends.kafka.batches``. IntegrityProblem FLV-3101 when ``start`` is no longer in the log, FLV-3001 when
        records were compacted away, FLV-3107 when the broker has damaged ones.
        """
        if start >= end:
            return
        low, _ = self.bounds(topic, partition)
        if start < low:
            raise _deleted((topic, partition), start, low)
        for came in self._fetches({(topic, partition): start}, end):
            for whole in came:
                yield from _records(whole)

    def read_batches(
        self, topic: str, partition: int, start: int, end: int, records_max: int = 500
    ) -> Iterator[list[tuple[int, int, bytes | None]]]:
        """(offset, timestamp in ms, value) of the records ``start`` to ``end`` - 1, many at a time: for bulk readers.

        Transactions' markers are left out. Ends early where nothing came for ``REQUEST_TIMEOUT_S``: TimeoutProblem
        FLV-3102. ``start`` must be in the log.
        """
        heard_s, at = time.monotonic(), start
        for came in self._fetches({(topic, partition): start}, end):
            for stretch in (stretch for whole in came for stretch in whole.stretches()):
                at = stretch.next_offset
                if not stretch.is_marker:
                    rows = list(zip(range(stretch.first, at), stretch.times_ms, stretch.values, strict=True))
                    yield from (rows[i : i + records_max] for i in range(0, len(rows), records_max))
                heard_s = time.monotonic()
            if time.monotonic() - heard_s > REQUEST_TIMEOUT_S:
                raise TimeoutProblem(
                    "FLV-3102",
                    f"no record of {topic}[{partition}] came within {REQUEST_TIMEOUT_S:g} s, at offset {at}",
                    hint="see whether the broker runs with `fluvial doctor`",
                )

    def last(self, topic: str, partition: int) -> LogRecord | None:
        """The newest record of a partition; None when it is empty."""
        low, high = self.bounds(topic, partition)
        if high <= low:
            return None
        return next(self.read(topic, partition, high - 1, high))

    def follow(
        self, starts: Mapping[Place, int], *, timeout_s: float | None = None
    ) -> Iterator[LogRecord | None]:
        """Records from the given offsets on, for ever; None about every quarter second without one.

        As with ``read``, an offset that holds no record comes without key and value.
        Ends when ``timeout_s`` passed without a record. A start of -1 means what comes from now on.
        """
        begins = {place: start if start >= 0 else self.bounds(*place)[1] for place, start in starts.items()}
        heard_s = time.monotonic()
        for came in self._fetches(begins):
            for whole in came:
                yield from _records(whole)
            if came:
                heard_s = time.monotonic()
                continue
            yield None
            if timeout_s is not None and time.monotonic() - heard_s > timeout_s:
                return

    # -- how

    def _answer(self, question: Coroutine[Any, Any, T]) -> T:
        return submit(question, self._loop).result()

    def _fetches(self, starts: Mapping[Place, int], end: int | None = None) -> Iterator[list[Whole]]:
        """What each fetch brings, in order, up to ``end`` if there is one; nothing about every quarter second without.

        While one is read the next is on its way.
        """
        cursor = Cursor(starts, end)
        coming = self._ask(cursor)
        try:
            while coming is not None:
                if not concurrent.futures.wait([coming], POLL_S).done:
                    yield []
                    continue
                try:
                    answer = coming.result()
                    came = cursor.advance(answer)
                except OutOfRangeError as error:
                    raise self._out_of_range(error) from error
                if answer and not came:
                    time.sleep(FRUITLESS_BACKOFF_S)
                coming = self._ask(cursor)
                yield came
        finally:
            if coming is not None:
                coming.cancel()

    def _ask(self, cursor: Cursor) -> Future[dict[Place, Fetched]] | None:
        wanted = cursor.wanted()
        if not wanted:
            return None
        fetch = self._client.fetch(
            wanted, bytes_max=cursor.bytes_max, wait_ms=FETCH_WAIT_MS, apart=cursor.is_endless
        )
        return submit(fetch, self._loop)

    def _out_of_range(self, error: OutOfRangeError) -> FluvialError:
        low, high = self.bounds(*error.place)
        if error.offset < low:
            return _deleted(error.place, error.offset, low)
        topic, partition = error.place
        why = f"offset {error.offset} lies beyond the log, which ends at {high}"
        return client_problem(OSError(why), f"read {topic}[{partition}]", self._bootstrap)


def _deleted(place: Place, start: int, low: int) -> IntegrityProblem:
    return IntegrityProblem(
        "FLV-3101",
        f"{place[0]}[{place[1]}] begins at offset {low}, offset {start} was deleted",
        hint="restore the topic from a backup, or audit from a later version with `fluvial audit --from V`",
    )


def _records(whole: Whole) -> Iterator[LogRecord]:
    topic, partition = whole.place
    for stretch in whole.stretches():
        offset = stretch.first
        columns = zip(stretch.times_ms, stretch.keys, stretch.values, stretch.headers, strict=True)
        for timestamp_ms, key, value, headers in columns:
            yield LogRecord(topic, partition, offset, timestamp_ms, key, value, headers)
            offset += 1
