"""What was fetched reaches agents in portions: bounded, in order, and no partition waits for all of another's."""

from __future__ import annotations

from dataclasses import dataclass

from faust.types import TP

from backends.kafka.faust.transport import (
    PORTION_BYTES,
    PORTION_RECORDS_MAX,
    _Portion,
    _portions,
    records_in,
)

ONE, OTHER = TP("updates", 0), TP("updates", 1)


@dataclass
class Fetched:
    """A record as aiokafka hands it out."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 1_790_000_000_123
    headers: tuple[tuple[str, bytes], ...] = ()


def sizes(fetched: dict[TP, list[Fetched]]) -> list[tuple[int, int]]:
    return [(partition.partition, len(portion)) for partition, portion in _portions(fetched)]


def test_a_portion_ends_with_the_record_that_reaches_a_bound() -> None:
    small = [Fetched(offset, b"x") for offset in range(2 * PORTION_RECORDS_MAX + 1)]
    assert sizes({ONE: small}) == [(0, PORTION_RECORDS_MAX), (0, PORTION_RECORDS_MAX), (0, 1)]
    large = [Fetched(offset, bytes(PORTION_BYTES // 2)) for offset in range(5)]
    assert sizes({ONE: large}) == [(0, 2), (0, 2), (0, 1)]
    assert sizes({ONE: [Fetched(0, bytes(3 * PORTION_BYTES)), Fetched(1, None)]}) == [(0, 1), (0, 1)]


def test_partitions_take_turns() -> None:
    records = [Fetched(offset, b"x") for offset in range(PORTION_RECORDS_MAX + 1)]
    assert [number for number, _ in sizes({ONE: records, OTHER: records[:3]})] == [0, 1, 0]
    assert sizes({}) == [] == sizes({ONE: []})


def test_a_portion_has_the_records_as_they_stand_in_the_log() -> None:
    fetched = [Fetched(7, b"v", b"k", headers=(("traceparent", b"1"),)), Fetched(8, None)]
    ((partition, portion),) = _portions({ONE: fetched})
    message = _Portion(partition, portion, generation=3)
    assert (message.tp, message.offset, message.generation_id, message.value) == (ONE, 8, 3, b"")
    assert [
        (one.offset, one.key, one.value, one.timestamp_ms, one.headers) for one in records_in(message)
    ] == [
        (7, b"k", b"v", 1_790_000_000_123, (("traceparent", b"1"),)),
        (8, None, None, 1_790_000_000_123, ()),
    ]
