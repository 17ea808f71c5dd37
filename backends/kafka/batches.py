"""What stands in the bytes of a partition: the one reading of record batches, for whoever folds, audits or shows.

Everybody who may write can have the broker store a batch that two libraries read differently. So nothing here is left
to a library's opinion, and every rule is a function:

1. Offsets come from batches' headers, which the broker writes: the first that a batch covers and the last. What a
   record says about its own offset decides nothing but whether its batch is regular (``batches_in``).
2. Nothing lies before the offset that was asked for, nor at or beyond the high watermark; no batch reaches into the
   next (``_cut``).
3. A batch is regular when it is of format 2, holds as many records as it covers offsets (``_is_whole``) and at most
   ``BATCH_RECORDS_MAX``, its payload is
   one stream of its codec that ends where the batch ends (``backends.kafka.unpacking``), and its records are numbered
   0, 1, 2, … and end there too (``backends.kafka.raw_records``). What their headers hold is nobody's business.
4. Where a batch is not regular, and where it is a transaction's marker, each offset that it covers is a record with
   neither key nor value (``content_of``). So are formats 0 and 1: no client of ours can have written them.
5. Where a batch unpacks to more than ``BATCH_UNPACKED_BYTES_MAX``, each of its offsets has ``OVERSIZED`` as its value,
   which every policy calls too large.
6. A broker takes no batch with a wrong checksum, of an unknown format, or shorter than its own header. Where one stands
   its disk is damaged, or the way here: ``DamagedBatchError``, and nobody reads on (``_require_sound``).
7. Offsets that no batch covers are a gap, which only the broker can have made; the caller says what becomes of it.

Of format 2: https://kafka.apache.org/documentation/#messageformat
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import repeat
from typing import Final, NamedTuple

import google_crc32c

from backends.kafka.raw_records import RECORDS_AT_ONCE_MAX, Records, records_in
from backends.kafka.unpacking import BATCH_UNPACKED_BYTES_MAX, Unpacked, UnpackedTooLargeError, unpack

BATCH_RECORDS_MAX: Final = 100_000
"""No producer fills a batch with so many, for a record of ours takes 300 bytes; looking through it would take long."""
OVERSIZED: Final = bytes(BATCH_UNPACKED_BYTES_MAX + 1)
"""Stands where a record's value would; one for all. Zeros that nobody touches take no memory."""

_START: Final = struct.Struct(">qiib")  # base offset, length, leader epoch, format
_REST: Final = struct.Struct(">hiqqqhii")  # attributes … number of records
_CHECKSUM: Final = struct.Struct(">I")
_OVERHEAD_BYTES: Final = 12  # base offset and length, which the length does not count
_CHECKED_AT: Final = 21  # what the checksum covers begins with the attributes
_HEADER_BYTES: Final = 61
_OLD_HEADER_BYTES: Final = 26  # of format 0, with neither key nor value
_FORMAT: Final = 2
_OLD_FORMATS: Final = frozenset({0, 1})
_CODEC: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_CONTROL: Final = 0x20


class DamagedBatchError(Exception):
    """Bytes that no broker can have taken from a producer; the message says what is wrong, and at which offset."""


class GapError(Exception):
    """No batch covers the offsets from ``expected`` to the one before ``got``."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"expected offset {expected}, got {got}")
        self.expected, self.got = expected, got


class Batch(NamedTuple):
    """One batch in the bytes of a fetch: ``data[at:end]``.

    It covers ``covered`` offsets from ``base`` on, as its header says; ``first`` to ``last`` are those that were asked
    for. ``newest_ms`` is its LogAppendTime where ``by_append``.
    """

    data: bytes
    at: int
    end: int
    base: int
    covered: int
    first: int
    last: int
    format: int
    attributes: int
    first_ms: int
    newest_ms: int
    records: int

    @property
    def is_control(self) -> bool:
        """Whether it is a transaction's marker, which only a broker writes."""
        return bool(self.attributes & _CONTROL)

    @property
    def by_append(self) -> bool:
        """Whether its time is the broker's, one for all of its records."""
        return bool(self.attributes & _LOG_APPEND_TIME)

    def times_ms(self, records: Records) -> Iterator[int]:
        """The records' times: the broker's, or, where the topic leaves it to producers, the producer's."""
        if self.by_append:
            return repeat(self.newest_ms, len(records.values))
        return (self.first_ms + delta_ms for delta_ms in records.deltas_ms)


class Content(NamedTuple):
    """What a batch comes to: ``records()``, one for each offset from its base on; or ``stand_in`` as the value of each.

    ``unpacked_bytes`` is what its payload takes beside the fetch.
    """

    plain: Unpacked | None = None
    kept: Records | None = None
    number: int = 0
    stand_in: bytes | None = None
    unpacked_bytes: int = 0

    @property
    def is_regular(self) -> bool:
        """Whether it holds records."""
        return self.plain is not None

    def records(self) -> Iterator[Records]:
        """The records of a regular batch, at most ``RECORDS_AT_ONCE_MAX`` at a time."""
        assert self.plain is not None
        return iter((self.kept,)) if self.kept is not None else records_in(self.plain, self.number)


def batches_in(data: bytes, start: int, high: int, *, checked: bool = True) -> Iterator[Batch]:
    """The whole batches in the bytes of a fetch that cover an offset from ``start`` on and before ``high``.

    A fetch may cut its last batch, which is fetched again then. Without ``checked`` checksums are left alone, for
    whoever wants to know offsets only. Raises ``DamagedBatchError``.
    """
    position, places = start, _places(data)
    place = next(places, None)
    while place is not None:
        batch, following, problem = _batch(data, *place, position), None, None
        if batch.first >= high:
            return
        if checked:
            _require_checksum(batch)
        try:
            following = next(places, None)
        except DamagedBatchError as error:  # what stands before it is read all the same
            problem = error
        batch = _cut(batch, high if following is None else min(high, _base_at(data, following[0], high)))
        if batch.first <= batch.last:
            yield batch
            position = batch.last + 1
        if problem is not None and position < high:
            raise problem
        place = following


def next_offset(data: bytes, start: int, high: int) -> int:
    """The offset behind the last whole batch in the bytes of a fetch; ``start`` where there is none.

    Checks them, and ends before what is wrong. Where that is the first: raises ``DamagedBatchError``, and ``GapError``
    where they leave out an offset.
    """
    position = start
    problem: DamagedBatchError | GapError | None = None
    try:
        for batch in batches_in(data, start, high):
            if batch.first > position:
                problem = GapError(position, batch.first)
                break
            position = batch.last + 1
    except DamagedBatchError as error:
        problem = error
    if problem is not None and position == start:
        raise problem
    return position


def content_of(batch: Batch) -> Content:
    """What a batch comes to, by the rules above."""
    if batch.format != _FORMAT or batch.is_control or not _is_whole(batch):
        return Content()
    if batch.records > BATCH_RECORDS_MAX:
        return Content()
    try:
        plain = unpack(batch.data, batch.at + _HEADER_BYTES, batch.end, batch.attributes & _CODEC)
    except UnpackedTooLargeError:
        return Content(stand_in=OVERSIZED, unpacked_bytes=BATCH_UNPACKED_BYTES_MAX)
    if plain is None:
        return Content()
    size = len(plain.data) if plain.data is not batch.data else 0
    if batch.records <= RECORDS_AT_ONCE_MAX:
        kept = next(records_in(plain, batch.records), None)
        return (
            Content(unpacked_bytes=size) if kept is None else Content(plain, kept, batch.records, None, size)
        )
    whole = sum(len(some.values) for some in records_in(plain, batch.records)) == batch.records
    return Content(plain, None, batch.records, None, size) if whole else Content(unpacked_bytes=size)


def has_whole(data: bytes) -> bool:
    """Whether a fetch has one batch at least that it did not cut. Raises ``DamagedBatchError``."""
    return next(_places(data), None) is not None


def _places(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the whole batches begin and end."""
    at = 0
    while at + _START.size <= len(data):
        base, length, _, magic = _START.unpack_from(data, at)
        _require_sound(base, length, magic)
        end = at + _OVERHEAD_BYTES + length
        if end > len(data):
            return
        yield at, end
        at = end


def _require_sound(base: int, length: int, magic: int) -> None:
    least = _HEADER_BYTES if magic == _FORMAT else _OLD_HEADER_BYTES
    if base < 0 or length < least - _OVERHEAD_BYTES or (magic != _FORMAT and magic not in _OLD_FORMATS):
        message = (
            f"at offset {base} stands a batch of format {magic} with {length} bytes, which no broker takes"
        )
        raise DamagedBatchError(message)


def _require_checksum(batch: Batch) -> None:
    if batch.format != _FORMAT:
        return
    (expected,) = _CHECKSUM.unpack_from(batch.data, batch.at + _START.size)
    if google_crc32c.value(batch.data[batch.at + _CHECKED_AT : batch.end]) != expected:
        message = f"the batch at offset {batch.base} has another checksum than its bytes"
        raise DamagedBatchError(message)


def _base_at(data: bytes, at: int, otherwise: int) -> int:
    """The first offset of the batch that begins there; ``otherwise`` in formats 0 and 1, which do not say it."""
    base, _, _, magic = _START.unpack_from(data, at)
    return int(base) if magic == _FORMAT else otherwise


def _batch(data: bytes, at: int, end: int, position: int) -> Batch:
    base, _, _, magic = _START.unpack_from(data, at)
    if (
        magic != _FORMAT
    ):  # what it says is the last offset that it covers, and it covers those since the one before
        return Batch(data, at, end, position, base - position + 1, position, base, magic, 0, 0, 0, 0)
    attributes, last_delta, first_ms, newest_ms, _, _, _, count = _REST.unpack_from(data, at + _CHECKED_AT)
    first, last = max(base, position), base + last_delta
    return Batch(
        data, at, end, base, last_delta + 1, first, last, magic, attributes, first_ms, newest_ms, count
    )


def _cut(batch: Batch, bound: int) -> Batch:
    """Without the offsets from ``bound`` on."""
    return batch if batch.last < bound else batch._replace(last=bound - 1)


def _is_whole(batch: Batch) -> bool:
    """Whether it holds as many records as it covers offsets: a producer's does, unless it was compacted since."""
    return batch.records == batch.covered > 0
