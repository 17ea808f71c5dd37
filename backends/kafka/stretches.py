"""Records as readers take them: stretches of offsets that follow one another, whatever their batch came to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from backends.kafka.batches import OVERSIZED, Batch, Content, batches_in, content_of
from backends.kafka.raw_records import RECORDS_AT_ONCE_MAX, Records, headers_of
from backends.log import Headers, LogRecord


class Stretch(NamedTuple):
    """Records of one batch, at the offsets from ``first`` on; one key and one value each.

    ``is_marker``: a transaction's, which is no record to whoever only looks.
    """

    first: int
    by_append: bool
    times_ms: Iterator[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: Iterator[Headers]
    is_marker: bool

    @property
    def next_offset(self) -> int:
        """The offset behind it."""
        return self.first + len(self.values)


def size_of(record: LogRecord) -> int:
    """The bytes that a record takes in memory: what stands in for one that is too large is one for all."""
    value = b"" if record.value is OVERSIZED else record.value or b""
    return len(value) + len(record.key or b"") + sum(len(name) + len(data) for name, data in record.headers)


def stretches_in(data: bytes, start: int, high: int, *, checked: bool = True) -> Iterator[Stretch]:
    """All that the bytes of a fetch hold from ``start`` on and before ``high``; see ``backends.kafka.batches``."""
    for batch in batches_in(data, start, high, checked=checked):
        yield from stretches_of(batch, content_of(batch))


def stretches_of(batch: Batch, content: Content) -> Iterator[Stretch]:
    """A batch's records, at most ``RECORDS_AT_ONCE_MAX`` at a time."""
    if not content.is_regular:
        yield from _stand_ins(batch, content.stand_in)
        return
    assert content.plain is not None
    for records in content.records():
        first = batch.base + records.number
        start = max(0, batch.first - first)
        end = min(len(records.values), batch.last - first + 1)
        if start < end:
            yield Stretch(
                first + start,
                batch.by_append,
                islice(batch.times_ms(records), start, end),
                records.keys[start:end],
                records.values[start:end],
                _headers(content.plain.data, records, start, end),
                is_marker=False,
            )


def _headers(data: bytes, records: Records, start: int, end: int) -> Iterator[Headers]:
    places = zip(records.headers_at[start:end], records.ends[start:end], strict=True)
    return (headers_of(data, at, stop) for at, stop in places)


def _stand_ins(batch: Batch, value: bytes | None) -> Iterator[Stretch]:
    for first in range(batch.first, batch.last + 1, RECORDS_AT_ONCE_MAX):
        count = min(RECORDS_AT_ONCE_MAX, batch.last + 1 - first)
        yield Stretch(
            first,
            batch.by_append,
            iter([batch.newest_ms] * count),
            [None] * count,
            [value] * count,
            iter([()] * count),
            batch.is_control,
        )
