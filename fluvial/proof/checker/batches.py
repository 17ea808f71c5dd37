"""Record batches, read by the words of Kafka's protocol and of the codecs' documents; no code is shared with others.

What a partition holds is what its broker counts, not what a record says: a batch's header names the offsets that it
covers. A batch gives its records only where it is of format 2, is no control batch, holds one record for each of these
offsets and at most ``RECORDS_MAX``, is compressed as one stream and nothing behind it, and numbers its records 0, 1, 2,
… to its last byte. Each offset of any other batch has neither key nor value; of one that may be sound but is larger
than ``PLAIN_BYTES_MAX`` without its compression, a value of more bytes than any policy takes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import cramjam
from aiokafka.record.util import calc_crc32c

from fluvial.proof.checker.derived import Entry
from fluvial.proof.checker.vouched import HeadEntry, head_entry

PLAIN_BYTES_MAX: Final = 100_000_000
RECORDS_MAX: Final = 100_000
TOO_LARGE: Final = bytes(PLAIN_BYTES_MAX + 1)

_NEWEST_FORMAT: Final = 2
_LEAST_BYTES: Final = {0: 26, 1: 26, 2: 61}
_CHECKSUMMED_FROM: Final = 21
_RECORDS_FROM: Final = 61
_LZ4: Final = b"\x04\x22\x4d\x18"
_LZ4_BLOCKS: Final = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK: Final = 1 << 17
_ZSTD_RAW, _ZSTD_RUN, _ZSTD_COMPRESSED = 0, 1, 2
HEADERS_MAX: Final = 64
"""A record of more has none that anybody reads."""
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_BYTES: Final = 16
_VARINT_BYTES, _VARLONG_BYTES = 5, 10


class DamagedLogError(Exception):
    """What no broker takes from anybody stands in the log."""


class _Wrong(Exception):
    """Not what the documents say."""


class _TooLarge(Exception):
    """More than ``PLAIN_BYTES_MAX``."""


def entries_in(
    message_set: bytes, start: int, end: int, heads: list[HeadEntry] | None = None
) -> Iterator[Entry]:
    """The entries of the offsets from ``start`` on, before ``end``, that the whole batches of a fetch cover.

    What stands in a record's header as a head is added to ``heads``. What stands at or behind ``end`` is not looked at:
    a damaged batch there is for whoever reads so far. ``DamagedLogError`` for one in front of it.
    """
    batches, expected = _split(message_set), start
    following: tuple[int, bytes] | None = next(batches, None)
    while following is not None and expected < end:
        base, batch = following
        if batch[16] == _NEWEST_FORMAT and base >= end:
            return
        _require_checksum(base, batch)
        damage: DamagedLogError | None = None
        try:
            following = next(batches, None)
        except DamagedLogError as error:  # it is raised once all in front of it is read
            following, damage = None, error
        behind = end
        if following is not None and following[1][16] == _NEWEST_FORMAT:
            behind = min(end, following[0])
        if batch[16] == _NEWEST_FORMAT:
            (last_delta,) = struct.unpack_from(">i", batch, 23)
            first, last = max(base, expected), min(base + last_delta, behind - 1)
        else:
            first, last = expected, min(base, behind - 1)
        if first <= last:
            if first > expected:
                message = f"offset {expected} is missing, {first} follows"
                raise DamagedLogError(message)
            yield from _entries_of(base, batch, first, last, heads)
            expected = last + 1
        if damage is not None and expected < end:
            raise damage


def _split(message_set: bytes) -> Iterator[tuple[int, bytes]]:
    """(base offset, bytes) of the batches, their checksums unseen; a fetch may cut its last one."""
    at = 0
    while len(message_set) - at >= 17:  # noqa: PLR2004
        base, length = struct.unpack_from(">qi", message_set, at)
        magic = message_set[at + 16]
        if base < 0 or magic not in _LEAST_BYTES or length + 12 < _LEAST_BYTES[magic]:
            message = f"a batch of format {magic} and {length} bytes at offset {base}"
            raise DamagedLogError(message)
        batch = message_set[at : at + 12 + length]
        if len(batch) < 12 + length:
            return
        yield base, batch
        at += len(batch)


def _require_checksum(base: int, batch: bytes) -> None:
    if batch[16] != _NEWEST_FORMAT:
        return
    if calc_crc32c(batch[_CHECKSUMMED_FROM:]) != struct.unpack_from(">I", batch, 17)[0]:
        message = f"the batch at offset {base} does not have its checksum"
        raise DamagedLogError(message)


def _entries_of(
    base: int, batch: bytes, first: int, last: int, heads: list[HeadEntry] | None
) -> Iterator[Entry]:
    if batch[16] != _NEWEST_FORMAT:
        for offset in range(first, last + 1):
            yield offset, 0, None, None
        return
    attributes, last_delta, first_ms, newest_ms = struct.unpack_from(">hiqq", batch, _CHECKSUMMED_FROM)
    (count,) = struct.unpack_from(">i", batch, 57)
    whole = count == last_delta + 1 <= RECORDS_MAX and not attributes & 0x20
    plain, instead = _looked_through(batch[_RECORDS_FROM:], attributes & 7, count) if whole else (None, None)
    if plain is None:
        for offset in range(first, last + 1):
            yield offset, newest_ms, None, instead
        return
    for delta, (delta_ms, key, value, headers) in enumerate(_records(plain, count)):
        if first <= base + delta <= last:
            timestamp_ms = newest_ms if attributes & 8 else first_ms + delta_ms
            head = None if heads is None else head_entry(_headers(headers), timestamp_ms)
            if heads is not None and head is not None:
                heads.append(head)
            yield base + delta, timestamp_ms, key, value


def _looked_through(packed: bytes, codec: int, count: int) -> tuple[bytes | None, bytes | None]:
    """The plain records, if all of them are as they have to be; or what stands in the place of each value."""
    try:
        plain = _plain(packed, codec)
        for _ in _records(plain, count):
            pass
    except _Wrong:
        return None, None
    except _TooLarge:
        return None, TOO_LARGE
    return plain, None


class _Bytes:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise _Wrong
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, bytes_max: int = _VARINT_BYTES) -> int:
        bits = 32 if bytes_max == _VARINT_BYTES else 64
        number = 0
        for place in range(bytes_max):
            (byte,) = self.take(1)
            number += (byte & 0x7F) << (7 * place)
            if byte < 0x80:  # noqa: PLR2004
                number %= 1 << bits
                return -(number + 1) // 2 if number % 2 else number // 2
        raise _Wrong

    def nullable(self) -> bytes | None:
        length = self.varint()
        return self.take(length) if length >= 0 else None


def _headers(data: bytes) -> list[tuple[str, bytes | None]]:
    """(name, value) of each of a record's headers; none where they are not as they have to be."""
    source, found = _Bytes(data), []
    try:
        count = source.varint()
        if not 0 <= count <= HEADERS_MAX:
            return []
        for _ in range(count):
            name = source.take(source.varint()).decode()
            found.append((name, source.nullable()))
    except (_Wrong, UnicodeDecodeError):
        return []
    return found


def _records(plain: bytes, count: int) -> Iterator[tuple[int, bytes | None, bytes | None, bytes]]:
    """(time beside the batch's, key, value, the bytes of the headers) of each record."""
    source = _Bytes(plain)
    for number in range(count):
        length = source.varint()
        begin = source.at
        source.take(1)  # attributes: of no use yet
        delta_ms = source.varint(_VARLONG_BYTES)
        if source.varint() != number:
            raise _Wrong
        key, value = source.nullable(), source.nullable()
        if source.at > begin + length:
            raise _Wrong
        yield delta_ms, key, value, source.take(begin + length - source.at)
    if source.left:
        raise _Wrong


def _plain(packed: bytes, codec: int) -> bytes:
    match codec:
        case 0:
            return packed
        case 1:
            return _gunzip(packed)
        case 2:
            return _unsnappy(packed)
        case 3:
            return _unframe(cramjam.lz4, packed, _lz4_blocks(_Bytes(packed)))
        case 4:
            return _unframe(cramjam.zstd, packed, _zstd_blocks(_Bytes(packed)))
        case _:
            raise _Wrong


def _gunzip(packed: bytes) -> bytes:
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = member.decompress(packed, PLAIN_BYTES_MAX + 1)
    except zlib.error:
        raise _Wrong from None
    if len(plain) > PLAIN_BYTES_MAX:
        raise _TooLarge
    if not member.eof or member.unused_data:
        raise _Wrong
    return plain


def _unsnappy(packed: bytes) -> bytes:
    if not packed.startswith(_XERIAL):
        return _unsnappy_block(packed, 0)
    source = _Bytes(packed)
    source.take(_XERIAL_BYTES)
    parts: list[bytes] = []
    size = 0
    while source.left:
        (length,) = struct.unpack(">i", source.take(4))
        if length == 0:
            raise _Wrong
        parts.append(_unsnappy_block(source.take(length), size))
        size += len(parts[-1])
    return b"".join(parts)


def _unsnappy_block(packed: bytes, before: int) -> bytes:
    try:
        if before + cramjam.snappy.decompress_raw_len(packed) > PLAIN_BYTES_MAX:
            raise _TooLarge
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError:
        raise _Wrong from None


def _unframe(codec: object, packed: bytes, most: int) -> bytes:
    """One frame, whose blocks hold ``most`` bytes at most."""
    room = bytearray(min(most, PLAIN_BYTES_MAX))
    if not room:
        return b""
    try:
        size = codec.decompress_into(packed, room)  # type: ignore[attr-defined]
    except cramjam.DecompressionError:
        raise (_TooLarge if most > PLAIN_BYTES_MAX else _Wrong) from None
    return bytes(room[:size])


def _lz4_blocks(frame: _Bytes) -> int:
    """The most that the blocks of an LZ4 frame can hold; ``_Wrong`` unless there is one and nothing behind it."""
    if frame.take(4) != _LZ4:
        raise _Wrong
    flags, descriptor = frame.take(2)
    block = _LZ4_BLOCKS.get((descriptor & 0x70) >> 4)
    if flags & 0xC0 != 0x40 or block is None:  # noqa: PLR2004
        raise _Wrong
    frame.take((8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0) + 1)
    most = 0
    while word := int.from_bytes(frame.take(4), "little"):
        size = word & ~(1 << 31)
        frame.take(size)
        frame.take(4 if flags & 0x10 else 0)
        most += min(size, block) if word & (1 << 31) else block
    frame.take(4 if flags & 0x04 else 0)
    if frame.left:
        raise _Wrong
    return most


def _zstd_blocks(frame: _Bytes) -> int:
    """As ``_lz4_blocks``, of a Zstandard frame."""
    if frame.take(4) != _ZSTD:
        raise _Wrong
    (descriptor,) = frame.take(1)
    single = bool(descriptor & 0x20)
    frame.take(0 if single else 1)
    frame.take([0, 1, 2, 4][descriptor & 3])
    frame.take([1 if single else 0, 2, 4, 8][descriptor >> 6])
    most, last = 0, False
    while not last:
        header = int.from_bytes(frame.take(3), "little")
        last, kind, size = bool(header & 1), (header >> 1) & 3, header >> 3
        if kind not in {_ZSTD_RAW, _ZSTD_RUN, _ZSTD_COMPRESSED}:
            raise _Wrong
        frame.take(1 if kind == _ZSTD_RUN else size)
        most += _ZSTD_BLOCK if kind == _ZSTD_COMPRESSED else size
    frame.take(4 if descriptor & 0x04 else 0)
    if frame.left:
        raise _Wrong
    return most
