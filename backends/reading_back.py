"""Reading a partition from its end: for whoever looks for the newest of something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backends.log import LogRecord, RecordReader

PIECE_RECORDS_FIRST: Final = 8
PIECE_RECORDS_MAX: Final = 16_384
"""Records of one piece: it bounds memory where somebody has filled a topic with junk."""


def backwards(reader: RecordReader, topic: str, partition: int) -> Iterator[list[LogRecord]]:
    """A partition's records from its end back, in growing pieces; each piece in order of its offsets."""
    low, high = reader.bounds(topic, partition)
    span = PIECE_RECORDS_FIRST
    while high > low:
        start = max(low, high - span)
        yield list(reader.read(topic, partition, start, high))
        high = start
        span = min(span * 4, PIECE_RECORDS_MAX)
