"""What aiokafka's fetcher is given in the place of its own reading: bounded, by our rules, and it stops at damage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import psutil
import pytest
from aiokafka.consumer import fetcher
from aiokafka.structs import ConsumerRecord, TopicPartition

from aggregation.errors import IntegrityProblem
from backends.kafka.batches import OVERSIZED
from backends.kafka.faust.our_batches import (
    FETCH_UNPACKED_BYTES_MAX,
    FRUITLESS_FETCHES_MAX,
    BoundedResult,
    OurRecords,
    RawBatches,
    read_by_our_batches,
)
from backends.kafka.unpacking import BATCH_UNPACKED_BYTES_MAX
from tests import odd_batches
from tests.raw_batches import AT_MS, BY_APPEND, GZIP, LZ4, NAMES, SNAPPY, ZSTD, at_base, batch, pack, record

PLACE: Final = TopicPartition("t", 3)
MEMORY_MARGIN_BYTES: Final = 220_000_000


def records_of(data: bytes, start: int = 40, high: int = 1000) -> OurRecords:
    """As aiokafka makes them of an answer."""
    state = SimpleNamespace(highwater=high)
    assignment = SimpleNamespace(state_value=lambda _: state)
    records = OurRecords(PLACE, RawBatches(data), [], start)
    BoundedResult(PLACE, assignment=assignment, partition_records=records, backoff=0.1)
    return records


def read(data: bytes, start: int = 40, high: int = 1000) -> list[tuple[int, Any]]:
    return [(one.offset, one.value) for one in records_of(data, start, high)]


def test_installed_it_is_what_aiokafka_reads_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MemoryRecords", "PartitionRecords", "FetchResult"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    read_by_our_batches()
    read_by_our_batches()
    ours = (RawBatches, OurRecords, BoundedResult)
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult) == ours


def test_a_record_comes_with_all_that_a_consumer_is_given() -> None:
    payload = record(b"one", 0, key=b"k", headers=[(b"h", b"x")]) + record(None, 1)
    records = records_of(at_base(batch(payload, 2, attributes=BY_APPEND), 40))
    assert list(records) == [
        ConsumerRecord("t", 3, 40, AT_MS, 1, b"k", b"one", None, 1, 3, (("h", b"x"),)),
        ConsumerRecord("t", 3, 41, AT_MS, 1, None, None, None, -1, -1, ()),
    ]
    assert records.next_fetch_offset == 42


def test_nothing_is_read_at_or_beyond_the_high_watermark() -> None:
    data = at_base(batch(record(b"x", 0), 1, last_delta=2**31 - 2), 40)
    assert read(data, high=43) == [(40, None), (41, None), (42, None)]


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD], ids=NAMES.get)
def test_a_bomb_is_too_large_at_each_of_its_offsets_and_takes_no_memory(codec: int) -> None:
    payload = record(bytes(BATCH_UNPACKED_BYTES_MAX), 0) + record(b"after it", 1)
    bomb = at_base(batch(pack(payload, codec), 2, codec=codec), 40)
    del payload
    before = psutil.Process().memory_info().rss
    found = read(bomb)
    assert psutil.Process().memory_info().rss - before < MEMORY_MARGIN_BYTES
    assert [offset for offset, _ in found] == [40, 41]
    assert found[0][1] is found[1][1] is OVERSIZED
    behind = at_base(batch(record(b"next", 0), 1), 42)
    assert read(bomb + behind) == found, "what is behind it comes with the next fetch"


def test_a_fetch_full_of_bombs_is_read_in_pieces() -> None:
    """What was left out is fetched again from the offset behind the last batch that was read."""
    values = {40 + number: bytes(10 << 20) for number in range(20)}
    bombs = [
        at_base(batch(pack(record(value, 0), ZSTD), 1, codec=ZSTD), offset)
        for offset, value in values.items()
    ]
    found: list[tuple[int, bytes | None]] = []
    pieces = 0
    while len(found) < len(bombs):
        piece = read(b"".join(bombs[len(found) :]), 40 + len(found))
        assert 0 < sum(len(value or b"") for _, value in piece) <= FETCH_UNPACKED_BYTES_MAX + (11 << 20)
        found += piece
        pieces += 1
    assert found == list(values.items())
    assert pieces == 5


def test_a_damaged_batch_ends_the_reading_with_its_name() -> None:
    good = at_base(batch(record(b"good", 0), 1), 40)
    for odd in odd_batches.DAMAGES:
        bad = at_base(odd.build((b"one", b"two")), 41)
        assert RawBatches(bad).has_next(), "or nobody would look at it"
        assert read(good + bad) == [(40, b"good")]
        assert [read(bad, 41) for _ in range(FRUITLESS_FETCHES_MAX - 1)] == [[], []], "it is fetched again"
        records = records_of(bad, 41)
        ((offset, problem),) = [(one.offset, one.value) for one in records]
        assert (offset, records.next_fetch_offset) == (41, 41)
        assert isinstance(problem, IntegrityProblem) and problem.error_id == "FLV-3107"
        assert "t[3]" in str(problem) and "offset 41" in problem.message
        assert read(at_base(batch(record(b"mended", 0), 1), 41), 41) == [(41, b"mended")]


def test_what_holds_nothing_of_what_was_asked_for_is_not_fetched_for_ever() -> None:
    old = at_base(batch(record(b"old", 0), 1), 40)
    assert [read(old, 50) for _ in range(FRUITLESS_FETCHES_MAX - 1)] == [[], []]
    ((offset, problem),) = read(old, 50)
    assert offset == 50 and isinstance(problem, IntegrityProblem) and problem.error_id == "FLV-3107"
    assert "3 fetches from offset 50 brought no batch that holds it" in problem.message


def test_a_partition_that_cannot_be_read_is_fetched_no_more() -> None:
    """An error out of the fetcher would end the fetching of all partitions, and the worker."""
    bad = at_base(odd_batches.DAMAGES[0].build((b"one", b"two")), 60)
    paused: list[bool] = []
    state = SimpleNamespace(highwater=99, paused=False, position=60, pause=lambda: paused.append(True))
    state.consumed_to = lambda position: setattr(state, "position", position)
    assignment = SimpleNamespace(state_value=lambda _: state, active=True)
    came: list[ConsumerRecord] = []
    for _ in range(FRUITLESS_FETCHES_MAX):
        assert paused == []
        records = OurRecords(PLACE, RawBatches(bad), [], 60)
        result = BoundedResult(PLACE, assignment=assignment, partition_records=records, backoff=0.1)
        came = result.getall(500)
    assert (len(came), paused, state.position) == (1, [True], 60)


def test_a_fetch_without_a_whole_batch_has_nothing_next() -> None:
    whole = batch(record(b"one", 0), 1)
    assert RawBatches(whole).has_next() and RawBatches(whole).size_in_bytes() == len(whole)
    assert not RawBatches(whole[:-1]).has_next()
    assert not RawBatches(b"").has_next()
