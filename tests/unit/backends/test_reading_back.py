"""Reading a partition from its end: every record once, in pieces that grow and are bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pytest

from backends import reading_back
from backends.log import LogRecord
from backends.reading_back import PIECE_RECORDS_FIRST, VALUE_BYTES_MAX, backwards

if TYPE_CHECKING:
    from collections.abc import Iterator


class NumberedRecords:
    """A partition whose records ``first`` to ``end`` - 1 have not been deleted."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        assert (topic, partition) == ("t", 3)
        return self.first, self.end

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        for offset in range(start, end):
            yield LogRecord(topic, partition, offset, 0, None, None)

    def last(self, topic: str, partition: int) -> LogRecord | None:
        raise NotImplementedError


def pieces(first: int, end: int) -> list[list[int]]:
    found = backwards(NumberedRecords(first, end), "t", 3)
    return [[record.offset for record in piece] for piece in found]


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 8), (0, 9), (5, 200), (40, 1000)])
def test_every_record_comes_once_the_newest_pieces_first(first: int, end: int) -> None:
    found = pieces(first, end)
    assert [offset for piece in reversed(found) for offset in piece] == list(range(first, end))
    assert all(piece == sorted(piece) for piece in found)


def test_an_empty_partition_has_no_pieces() -> None:
    assert pieces(7, 7) == []


def test_the_first_piece_is_small_and_the_others_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_back, "PIECE_RECORDS_MAX", 100)
    assert [len(piece) for piece in pieces(0, 400)] == [PIECE_RECORDS_FIRST, 32, 100, 100, 100, 60]


def test_a_record_that_is_far_too_large_comes_without_what_makes_it_so() -> None:
    """A batch of 3 kB may unpack to 100 MB: a piece of such ones must not be held."""

    class Large(NumberedRecords):
        def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
            for offset in range(start, end):
                size = VALUE_BYTES_MAX + offset - 2
                yield LogRecord(topic, partition, offset, 7, b"k", bytes(size), (("h", b""),))

    (piece,) = backwards(Large(0, 4), "t", 3)
    assert [len(record.value or b"") for record in piece] == [VALUE_BYTES_MAX - 2, VALUE_BYTES_MAX - 1, 0, 0]
    assert piece[0].headers and piece[3] == LogRecord("t", 3, 3, 7, None, None)
