"""Reading a partition from its end: for whoever looks for the newest of something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from backends.log import LogRecord, RecordReader

PIECE_RECORDS_FIRST: Final = 8
PIECE_RECORDS_MAX: Final = 16_384
"""Records of one piece: it bounds memory where somebody has filled a topic with junk."""
VALUE_BYTES_MAX: Final = 64 * 1024
"""Bytes of a value. Windows, announcements and verdicts have a few thousand; a batch of 3 kB may unpack to 100 MB."""


def backwards(reader: RecordReader, topic: str, partition: int) -> Iterator[list[LogRecord]]:
    """A partition's records from its end back, in growing pieces; each piece in order of its offsets.

    One with a value or key above ``VALUE_BYTES_MAX`` comes without both, and without headers.
    """
    low, high = reader.bounds(topic, partition)
    span = PIECE_RECORDS_FIRST
    while high > low:
        start = max(low, high - span)
        yield [_kept(record) for record in reader.read(topic, partition, start, high)]
        high = start
        span = min(span * 4, PIECE_RECORDS_MAX)


def _kept(record: LogRecord) -> LogRecord:
    bytes_of_it = (
        len(record.value or b"") + len(record.key or b"") + sum(len(value) for _, value in record.headers)
    )
    return record if bytes_of_it <= VALUE_BYTES_MAX else replace(record, key=None, value=None, headers=())
