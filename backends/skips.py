"""Looking through a partition's log for the Skip that parks a record: what worker, audit and lineage share."""

from __future__ import annotations

from collections.abc import Iterator

from aggregation.fold.events import Parked, Skip
from aggregation.server.aggregates import Slot
from backends.log import LogRecord, RecordReader
from schemas.certificates import Trust
from schemas.records import skip_in
from schemas.topics import updates_topic


def skipped_by(record: LogRecord, trust: Trust, task: str, slot: Slot, offset: int) -> Parked | None:
    """What to fold at ``offset``, if this later ``record`` of the same partition is an operator's Skip of it."""
    skip = _skip_of(record, trust, task, slot)
    if skip is None or skip.offset != offset or record.offset <= offset:
        return None
    return Parked(record.offset, skip.reason)


def find_parking_skip(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, offset: int
) -> Parked | None:
    """What to fold at ``offset``, if a Skip of it stands in the log by now: the first one counts."""
    for record in _rest(reader, task, slot, offset + 1):
        skipped = skipped_by(record, trust, task, slot, offset)
        if skipped is not None:
            return skipped
    return None


def find_skips(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, *, first: int, end: int
) -> dict[int, Parked]:
    """What Skips make of the offsets ``first`` to ``end`` - 1 that they name, wherever behind them they stand."""
    found: dict[int, Parked] = {}
    for record in _rest(reader, task, slot, first + 1):
        skip = _skip_of(record, trust, task, slot)
        if skip is not None and first <= skip.offset < min(end, record.offset):
            found.setdefault(skip.offset, Parked(record.offset, skip.reason))
    return found


def _rest(reader: RecordReader, task: str, slot: Slot, start: int) -> Iterator[LogRecord]:
    topic = updates_topic(task, slot[0])
    _, end = reader.bounds(topic, slot[1])
    return reader.read(topic, slot[1], start, end)


def _skip_of(record: LogRecord, trust: Trust, task: str, slot: Slot) -> Skip | None:
    skip = skip_in(record.value, record.timestamp_ms, trust)
    return skip if skip is not None and (skip.task, (skip.region, skip.partition)) == (task, slot) else None
