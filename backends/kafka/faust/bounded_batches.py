"""Record batches from strangers: unpacked within a bound, and read whatever stands in their headers.

aiokafka unpacks a compressed batch as a whole, however large it gets (8 MB of zstd hold up to 268 GB), raises where
a batch was compressed by a codec that it has no library for, and where a record's header name is not UTF-8. Each of
these would end every worker that is given the partition, again and again: one record from anybody who may write.

``install`` puts ``BoundedRecords`` into aiokafka's fetcher, for the whole process. Nothing is lost and no offset moves:
a batch over the bound comes as records with ``OVERSIZED`` as their value, which every policy calls too large.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

BATCH_UNPACKED_BYTES_MAX: Final = 100_000_000
"""More than the largest update that any policy takes, and where librdkafka stops with zstd, too."""

FETCH_UNPACKED_BYTES_MAX: Final = 32 << 20
"""A fetch is left after the batch that goes over this: 4 MB may hold hundreds of bombs, all unpacked at once."""

OVERSIZED: Final = bytes(BATCH_UNPACKED_BYTES_MAX + 1)
"""Stands where a record's value would; one for all. Zeros that nobody touches take no memory."""

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_OVERHEAD_BYTES: Final = 12  # base offset and length, which the length does not count
_MAGIC_AT: Final = 16
_MAGIC_V2: Final = 2
_ATTRIBUTES: Final = struct.Struct(">h")
_ATTRIBUTES_AT: Final = 21
_COMPRESSION_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_TIMESTAMPS: Final = struct.Struct(">qq")
_TIMESTAMPS_AT: Final = 27
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
_HEADER_BYTES: Final = 61
_XERIAL_HEADER: Final = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES: Final = 16


def install() -> None:
    """Let aiokafka's consumers in this process read by ``BoundedRecords``. Calling it again changes nothing."""
    fetcher.MemoryRecords = BoundedRecords


class BoundedRecords:
    """The batches in the bytes of one fetch; in the place of aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._unpacked_bytes = 0

    def size_in_bytes(self) -> int:
        """Bytes of the whole fetch."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another whole batch is there: a fetch may cut its last one. What is left out is fetched again."""
        if self._unpacked_bytes > FETCH_UNPACKED_BYTES_MAX:
            return False
        return self._at + _MAGIC_AT < len(self._data) and self._end() <= len(self._data)

    def next_batch(self) -> Any:
        """The next batch; only after ``has_next``."""
        batch, self._at = self._data[self._at : self._end()], self._end()
        if batch[_MAGIC_AT] < _MAGIC_V2:  # Kafka 4 takes no new ones, but an old log may hold some
            return MemoryRecords(batch.tobytes()).next_batch()
        return BoundedBatch(batch, self._count_unpacked)

    def _count_unpacked(self, size: int) -> None:
        self._unpacked_bytes += size

    def _end(self) -> int:
        (length,) = _LENGTH.unpack_from(self._data, self._at + _LENGTH_AT)
        return self._at + _OVERHEAD_BYTES + int(length)


class BoundedBatch:
    """One batch of format 2; what is not said here is said by aiokafka's own ``native`` batch."""

    def __init__(self, data: memoryview, count_unpacked: Callable[[int], None]) -> None:
        self._data = data
        self._count_unpacked = count_unpacked
        self._native = DefaultRecordBatch(data)
        self._records: Iterator[DefaultRecord] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DefaultRecord:
        if self._records is None:
            self._records = self._read()
        return next(self._records)

    def _read(self) -> Iterator[DefaultRecord]:
        if not self._native.compression_type:
            yield from _records(self._native, self._data)
            return
        unpacked = _unpacked(self._data, self._native.compression_type)
        self._count_unpacked(len(unpacked or OVERSIZED))
        if unpacked is None:
            for offset in range(self._native.base_offset, self._native.next_offset):
                yield DefaultRecord(offset, _append_time(self._data), 1, None, OVERSIZED, [])
            return
        yield from _records(DefaultRecordBatch(unpacked), unpacked)


def _unpacked(batch: memoryview, compression: int) -> memoryview | None:
    """The same batch without compression (its checksum is no longer right); None where it is over the bound."""
    # Mapped memory takes none before it is written to; a bytearray of this size would be filled with zeros first.
    plain = memoryview(mmap.mmap(-1, _HEADER_BYTES + BATCH_UNPACKED_BYTES_MAX))
    plain[:_HEADER_BYTES] = batch[:_HEADER_BYTES]
    (attributes,) = _ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(plain, _ATTRIBUTES_AT, attributes & ~_COMPRESSION_MASK)
    try:
        size = _decompress_into(batch[_HEADER_BYTES:].tobytes(), compression, plain[_HEADER_BYTES:])
    except cramjam.DecompressionError:
        return None  # the broker has unpacked it before us, so it was not damaged but too large
    return plain[: _HEADER_BYTES + size]


def _decompress_into(packed: bytes, compression: int, into: memoryview) -> int:
    """Unpack within the bound of ``into``; the bytes written. Raises ``cramjam.DecompressionError``."""
    match compression:
        case DefaultRecordBatch.CODEC_GZIP:
            return int(cramjam.gzip.decompress_into(packed, into))
        case DefaultRecordBatch.CODEC_SNAPPY:
            return _snappy_into(packed, into)
        case DefaultRecordBatch.CODEC_LZ4:
            return int(cramjam.lz4.decompress_into(packed, into))
        case DefaultRecordBatch.CODEC_ZSTD:
            return int(cramjam.zstd.decompress_into(packed, into))
        case _:
            raise CorruptRecordException(f"unknown compression codec {compression}")


def _snappy_into(packed: bytes, into: memoryview) -> int:
    """Raw snappy, or the framing of the Java library: a header, then blocks behind their lengths."""
    if not packed.startswith(_XERIAL_HEADER):
        return _snappy_block_into(packed, into)
    at, written = _XERIAL_HEADER_BYTES, 0
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        written += _snappy_block_into(packed[at : at + length], into[written:])
        at += length
    return written


def _snappy_block_into(packed: bytes, into: memoryview) -> int:
    if cramjam.snappy.decompress_raw_len(packed) > len(into):
        raise cramjam.DecompressionError("larger than the bound")
    return int(cramjam.snappy.decompress_raw_into(packed, into))


def _records(native: DefaultRecordBatch, data: memoryview) -> Iterator[DefaultRecord]:
    """The records of an uncompressed batch, by aiokafka; from the first that it cannot read on, by ourselves."""
    read = 0
    try:
        for record in native:
            yield record
            read += 1
    except (CorruptRecordException, UnicodeDecodeError):
        yield from _without_headers(native.base_offset, data, read)


def _without_headers(base_offset: int, data: memoryview, skipped: int) -> Iterator[DefaultRecord]:
    """The records after the first ``skipped``, without their headers, which are nobody's business here."""
    (count,) = _COUNT.unpack_from(data, _COUNT_AT)
    buffer = bytearray(data)
    at = _HEADER_BYTES
    for number in range(count):
        length, at = decode_varint(buffer, at)
        end = at + length
        if number >= skipped:
            yield _record(base_offset, data, buffer, at)
        at = end


def _record(base_offset: int, data: memoryview, buffer: bytearray, at: int) -> DefaultRecord:
    at += 1  # attributes, unused
    delta_ms, at = decode_varint(buffer, at)
    offset_delta, at = decode_varint(buffer, at)
    key, at = _nullable_bytes(buffer, at)
    value, _ = _nullable_bytes(buffer, at)
    (attributes,) = _ATTRIBUTES.unpack_from(data, _ATTRIBUTES_AT)
    first_ms, _ = _TIMESTAMPS.unpack_from(data, _TIMESTAMPS_AT)
    by_append = bool(attributes & _LOG_APPEND_TIME)
    timestamp_ms = _append_time(data) if by_append else first_ms + delta_ms
    return DefaultRecord(base_offset + offset_delta, timestamp_ms, int(by_append), key, value, [])


def _nullable_bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    if length < 0:
        return None, at
    return bytes(buffer[at : at + length]), at + length


def _append_time(data: memoryview) -> int:
    return int(_TIMESTAMPS.unpack_from(data, _TIMESTAMPS_AT)[1])
