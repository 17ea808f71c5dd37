"""A batch's payload without its compression: one stream of its codec that ends where the bytes end, or nothing.

Libraries go on where a stream ends, or stop there: a second member of gzip is records to one reader and nothing to
another. So what a payload consists of is looked at here, block by block, before a library unpacks it within a bound.

Sources: gzip RFC 1952, LZ4 frames https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md, Zstandard RFC 8878,
snappy's blocks https://github.com/google/snappy/blob/main/format_description.txt and their framing by Java's library.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final, NamedTuple

import cramjam

BATCH_UNPACKED_BYTES_MAX: Final = 100_000_000
"""More than the largest update that any policy takes."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
"""The codecs as a batch's attributes number them; 0 is none."""

_GZIP_WINDOW: Final = 31  # of zlib: with gzip's header and trailer
_LITTLE: Final = struct.Struct("<I")
_BIG: Final = struct.Struct(">i")
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES: Final = 16
_LZ4_MAGIC: Final = 0x184D2204
_LZ4_BLOCK_BYTES_MAX: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_ZSTD_MAGIC: Final = 0xFD2FB528
_ZSTD_BLOCK_BYTES_MAX: Final = 128 << 10
_ZSTD_RUN: Final = 1
_ZSTD_RESERVED: Final = 3


class UnpackedTooLargeError(Exception):
    """A payload that may be sound, and is over ``BATCH_UNPACKED_BYTES_MAX`` without its compression."""


class Unpacked(NamedTuple):
    """Plain records: ``data[start:end]``."""

    data: bytes
    start: int
    end: int


def unpack(data: bytes, start: int, end: int, codec: int) -> Unpacked | None:
    """The records in the payload ``data[start:end]``; None where it is not one stream of its codec, or not sound.

    Raises ``UnpackedTooLargeError``.
    """
    if codec == 0:
        return Unpacked(data, start, end)
    packed = data[start:end]
    match codec:
        case _ if codec == GZIP:
            plain = _gzip(packed)
        case _ if codec == SNAPPY:
            plain = _snappy(packed)
        case _ if codec == LZ4:
            holds = _lz4_holds(packed)
            plain = None if holds is None else _into_bound(cramjam.lz4.decompress_into, packed, holds)
        case _ if codec == ZSTD:
            holds = _zstd_holds(packed)
            plain = None if holds is None else _into_bound(cramjam.zstd.decompress_into, packed, holds)
        case _:
            plain = None
    return None if plain is None else Unpacked(plain, 0, len(plain))


def _gzip(packed: bytes) -> bytes | None:
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = stream.decompress(packed, BATCH_UNPACKED_BYTES_MAX + 1)
    except zlib.error:
        return None
    if len(plain) > BATCH_UNPACKED_BYTES_MAX:
        raise UnpackedTooLargeError
    return plain if stream.eof and not stream.unused_data else None


def _snappy(packed: bytes) -> bytes | None:
    """One block, or the framing of the Java library: its header once, then blocks behind their lengths."""
    if not packed.startswith(_XERIAL):
        return _snappy_block(packed, 0)
    at, blocks, size = _XERIAL_HEADER_BYTES, [], 0
    while at < len(packed):
        if at + _BIG.size > len(packed):
            return None
        (length,) = _BIG.unpack_from(packed, at)
        at += _BIG.size
        if length <= 0 or at + length > len(packed):
            return None
        block = _snappy_block(packed[at : at + length], size)
        if block is None:
            return None
        blocks.append(block)
        size += len(block)
        at += length
    return b"".join(blocks)


def _snappy_block(packed: bytes, before: int) -> bytes | None:
    """A block that says how large it gets; ``before`` is what the blocks before it got to."""
    try:
        size = int(cramjam.snappy.decompress_raw_len(packed))
        if before + size > BATCH_UNPACKED_BYTES_MAX:
            raise UnpackedTooLargeError
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError:
        return None


def _lz4_holds(packed: bytes) -> int | None:
    """How much one frame may hold, by its blocks; None where the bytes are not exactly one."""
    if len(packed) < 7 or _LITTLE.unpack_from(packed)[0] != _LZ4_MAGIC:  # noqa: PLR2004
        return None
    flags, block_bytes_max = packed[4], _LZ4_BLOCK_BYTES_MAX.get(packed[5] >> 4 & 7)
    if flags >> 6 != 1 or block_bytes_max is None:
        return None
    at = 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)  # the sizes of what is stated: content, dictionary
    checksum_bytes, holds = 4 * (flags >> 4 & 1), 0
    while at + _LITTLE.size <= len(packed):
        (word,) = _LITTLE.unpack_from(packed, at)
        at += _LITTLE.size
        if word == 0:
            at += 4 * (flags >> 2 & 1)
            return holds if at == len(packed) else None
        size = word & 0x7FFFFFFF
        holds += min(size, block_bytes_max) if word >> 31 else block_bytes_max
        at += size + checksum_bytes
    return None


def _zstd_holds(packed: bytes) -> int | None:
    """As ``_lz4_holds``."""
    if len(packed) < 6 or _LITTLE.unpack_from(packed)[0] != _ZSTD_MAGIC:  # noqa: PLR2004
        return None
    descriptor = packed[4]
    single = descriptor >> 5 & 1
    size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
    holds = 0
    while at + 3 <= len(packed):
        word = int.from_bytes(packed[at : at + 3], "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        if kind == _ZSTD_RESERVED:
            return None
        holds += size if kind < 2 else _ZSTD_BLOCK_BYTES_MAX  # noqa: PLR2004
        at += 3 + (1 if kind == _ZSTD_RUN else size)
        if last:
            at += 4 * (descriptor >> 2 & 1)
            return holds if at == len(packed) else None
    return None


def _into_bound(decompress_into: object, packed: bytes, holds: int) -> bytes | None:
    """Unpack within the bound. What does not fit is too large where its blocks may hold so much, and unsound else."""
    size_max = min(holds, BATCH_UNPACKED_BYTES_MAX)
    if size_max == 0:
        return b""
    # Mapped memory takes none before it is written to; a bytearray of this size would be filled with zeros first.
    with mmap.mmap(-1, size_max) as plain:
        try:
            size = decompress_into(packed, plain)  # type: ignore[operator]
        except cramjam.DecompressionError:
            if holds > BATCH_UNPACKED_BYTES_MAX:
                raise UnpackedTooLargeError from None
            return None
        return plain[:size]
