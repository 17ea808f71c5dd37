"""What was fetched reaches agents in portions: bounded, in order, and no partition waits for all of another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faust.types import TP

from aggregation.errors import IntegrityProblem
from backends.kafka.faust import transport
from backends.kafka.faust.transport import (
    PORTION_BYTES,
    PORTION_RECORDS_MAX,
    _Portion,
    _portions,
    records_in,
)
from backends.log import LogRecord, UnreadableRecord
from tests.small_federation import IN_MEMORY

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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


def test_what_cannot_be_read_comes_behind_what_can() -> None:
    problem = IntegrityProblem("FLV-3107", "the log is damaged")
    fetched = {ONE: [Fetched(7, b"v"), Fetched(8, problem)], OTHER: [Fetched(0, b"x")]}  # type: ignore[arg-type]
    portions = dict(_portions(fetched))
    assert [one.value for one in portions[OTHER]] == [b"x"]
    good, last = portions[ONE]
    assert good.offset == 7 and isinstance(last, UnreadableRecord)
    assert (last.offset, last.problem, last.value) == (8, problem, None)


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


def test_what_is_committed_lies_behind_the_last_portion_that_was_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust would count the offsets between two portions as missing, and go through all of them."""
    monkeypatch.setattr(transport, "require_broker", lambda _: None)

    async def resume(_: object) -> dict[TP, int]:
        return {}

    app = transport.create_app("a", IN_MEMORY, resume, data_folder=str(tmp_path), record_bytes=1)
    consumer: Any = transport.ResumingConsumer(app.transport, resume, resume, resume)
    assert consumer._new_offset(ONE) is None
    monkeypatch.setattr(app.topics, "acks_enabled_for", lambda _: True)
    for offset in (63, 127, 130):
        assert consumer.ack(_Portion(ONE, [LogRecord("updates", 0, offset, 0, None, None)], generation=1))
    assert consumer._new_offset(ONE) == 131
    assert consumer._new_offset(ONE) is None
    assert consumer._new_offset(OTHER) is None
