"""Where a reader stands: on behind what came, and stopped where that is damaged or leaves an offset out."""

from __future__ import annotations

import pytest

from aggregation.errors import IntegrityProblem
from backends.kafka.batches import DamagedBatchError, GapError, next_offset
from backends.kafka.cursor import DAMAGED_FETCHES_MAX, FETCH_BYTES_FIRST, FETCH_BYTES_MAX, Cursor
from backends.kafka.fetching import Fetched
from tests.raw_batches import at_base, batch, record

A, B = ("a", 0), ("b", 3)


def one(offset: int, crc: int | None = None) -> bytes:
    return at_base(batch(record(b"x", 0), 1, crc=crc), offset)


def test_it_goes_on_behind_what_came_and_ends_at_its_end() -> None:
    cursor = Cursor({A: 5}, 7)
    (whole,) = cursor.advance({A: Fetched(one(5), 9)})
    assert [(stretch.first, stretch.values) for stretch in whole.stretches()] == [(5, [b"x"])]
    assert cursor.wanted() == {A: 6}
    (whole,) = cursor.advance({A: Fetched(one(6) + one(7), 9)})
    assert [stretch.first for stretch in whole.stretches()] == [6], "7 is nobody's business"
    assert cursor.wanted() == {}
    assert not cursor.is_endless


def test_without_an_end_all_partitions_are_wanted_for_ever_and_who_had_something_comes_last() -> None:
    cursor = Cursor({A: 0, B: 0}, None)
    assert cursor.advance({}) == []
    cursor.advance({A: Fetched(one(0), 1)})
    assert list(cursor.wanted().items()) == [(B, 0), (A, 1)]
    assert cursor.is_endless


def test_who_reads_much_fetches_more_at_once() -> None:
    cursor = Cursor({A: 0}, None)
    sizes = []
    for offset in range(6):
        sizes.append(cursor.bytes_max)
        cursor.advance({A: Fetched(one(offset), offset + 1)})
    assert sizes[0] == FETCH_BYTES_FIRST and sizes == sorted(sizes) and sizes[-1] == FETCH_BYTES_MAX


def test_what_came_damaged_is_fetched_again_before_it_is_believed() -> None:
    cursor = Cursor({A: 0, B: 0}, None)
    bad, good = Fetched(one(0, crc=1), 1), Fetched(one(0), 1)
    for _ in range(DAMAGED_FETCHES_MAX - 1):
        assert cursor.advance({A: bad}) == []
    assert cursor.wanted()[A] == 0
    assert len(cursor.advance({A: good, B: bad})) == 1
    for _ in range(DAMAGED_FETCHES_MAX - 2):
        assert cursor.advance({B: bad}) == []
    with pytest.raises(IntegrityProblem) as caught:
        cursor.advance({B: bad})
    assert caught.value.error_id == "FLV-3107"
    assert caught.value.where == "b[3]"


@pytest.mark.parametrize("bad", [one(1, crc=1), one(2), b"\0" * 40], ids=["checksum", "gap", "no batch"])
def test_what_stands_before_something_wrong_is_read_first(bad: bytes) -> None:
    cursor = Cursor({A: 0}, None)
    (whole,) = cursor.advance({A: Fetched(one(0) + bad, 9)})
    assert [(stretch.first, stretch.values) for stretch in whole.stretches()] == [(0, [b"x"])]
    assert cursor.wanted() == {A: 1}
    with pytest.raises((DamagedBatchError, GapError)):
        next_offset(bad, 1, 9)


def test_what_is_wrong_behind_the_end_is_nobodys_business() -> None:
    cursor = Cursor({A: 0}, 1)
    assert len(cursor.advance({A: Fetched(one(0) + one(1, crc=1), 9)})) == 1
    assert cursor.wanted() == {}


def test_an_offset_that_is_left_out_is_a_gap() -> None:
    """Compaction takes records out of the middle of a log, and nobody else does."""
    cursor = Cursor({A: 3}, None)
    with pytest.raises(IntegrityProblem) as caught:
        cursor.advance({A: Fetched(one(5), 6)})
    assert caught.value.error_id == "FLV-3001"
    assert "expected offset 3, got 5" in caught.value.message
