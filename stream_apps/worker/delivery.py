"""What a framework delivers of a partition's log, made whole: lost records are read, rewritten ones are noticed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.state import PartitionState
from backends.kafka.stretches import size_of
from backends.log import LogRecord
from stream_apps.worker.place import PartitionPlace

MISSING_BYTES_AT_ONCE: Final = 16 << 20
MISSING_RECORDS_AT_ONCE: Final = 16_384
RECENT_RECORDS_MAX: Final = 512
_TAIL_BYTES: Final = 64
"""Of a record's end, which is its signature: with its time and length, enough to know it again."""

log = logging.getLogger("fluvial.worker")


async def records_through(
    place: PartitionPlace, start: int, last: LogRecord, state: PartitionState
) -> AsyncIterator[LogRecord]:
    """The records from ``start`` to ``last``; ``state`` is for the log lines.

    What lies before ``last`` was lost on the way, as when Faust cancels agents: it is read from the log itself.
    """

    def read() -> list[LogRecord]:
        with place.open_reader("missing") as reader:
            return _some(reader.read(place.updates, place.partition, start, last.offset))

    while start < last.offset:
        log.info(
            "%s reads offsets %d to %d itself",
            place,
            start,
            last.offset - 1,
            extra=place.fields(start, state),
        )
        some = await place.retry(f"read what {place} missed", read)
        if not some:
            break  # a real gap: the fold says so
        for record in some:
            yield record
        start += len(some)  # every offset has a record, see backends.kafka.reading
    yield last


def _some(records: Iterator[LogRecord]) -> list[LogRecord]:
    """The next records, as many as memory should hold at once."""
    taken: list[LogRecord] = []
    size = 0
    for record in records:
        taken.append(record)
        size += size_of(record)
        if size >= MISSING_BYTES_AT_ONCE or len(taken) >= MISSING_RECORDS_AT_ONCE:
            break
    return taken


class RecentRecords:
    """The records folded last, so that a log that was rewritten under a running worker is noticed.

    A broker that lost the end of a log (a cut segment, an unclean election) gives its offsets to other records.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()

    def clear(self) -> None:
        """Forget them."""
        self._known.clear()

    def add(self, record: LogRecord) -> None:
        """Remember a record, and forget the oldest of more than ``RECENT_RECORDS_MAX``."""
        self._known[record.offset] = _mark(record)
        if len(self._known) > RECENT_RECORDS_MAX:
            self._known.popitem(last=False)

    def require_same(self, record: LogRecord, where: str) -> None:
        """IntegrityProblem FLV-3204 if another record stood at this offset when it was folded."""
        known = self._known.get(record.offset)
        if known is not None and known != _mark(record):
            raise IntegrityProblem(
                "FLV-3204",
                f"offset {record.offset} holds another record than the one that was folded",
                where=where,
                hint="the log was cut and written on: bring the lost records back, see docs/runbooks/truncated-log.md",
            )


def _mark(record: LogRecord) -> tuple[int, int, bytes]:
    value = record.value or b""
    return (record.timestamp_ms, len(value), value[-_TAIL_BYTES:])
