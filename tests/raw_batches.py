"""Batches as anybody may write them, byte by byte, and a socket to a broker: no client library's code."""

from __future__ import annotations

import gzip
import socket
import struct
from typing import TYPE_CHECKING, Final, Self

import cramjam
from aiokafka.record.util import calc_crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NAMES: Final = {0: "none", GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
CONTROL: Final = 0x20
TRANSACTIONAL: Final = 0x10
BY_APPEND: Final = 0x08
AT_MS: Final = 1_700_000_000_000
PRODUCE, PRODUCE_VERSION = 0, 7


def varint(number: int, bytes_min: int = 1) -> bytes:
    """Zigzag, seven bits a byte; with ``bytes_min`` longer than it need be."""
    rest = ((number << 1) ^ (number >> 63)) & ((1 << 64) - 1)
    out = bytearray()
    while rest or len(out) < bytes_min:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out[-1] &= 0x7F
    return bytes(out)


def nullable(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(
    value: bytes | None,
    delta: int,
    *,
    key: bytes | None = None,
    delta_ms: int = 0,
    headers: Sequence[tuple[bytes, bytes]] = (),
    attributes: int = 0,
    delta_bytes: int = 1,
    length: int | None = None,
) -> bytes:
    """One record; ``length`` in the place of its own."""
    body = (
        bytes([attributes]) + varint(delta_ms) + varint(delta, delta_bytes) + nullable(key) + nullable(value)
    )
    body += varint(len(headers)) + b"".join(nullable(name) + nullable(one) for name, one in headers)
    return varint(len(body) if length is None else length) + body


def batch(
    payload: bytes,
    count: int,
    *,
    codec: int = 0,
    last_delta: int | None = None,
    attributes: int = 0,
    producer: tuple[int, int, int] = (-1, -1, -1),
    base: int = 0,
    crc: int | None = None,
    magic: int = 2,
) -> bytes:
    """A batch of format 2 around a payload, which is there as it will stand."""
    last = count - 1 if last_delta is None else last_delta
    tail = struct.pack(">hiqqqhii", attributes | codec, last, AT_MS, AT_MS, *producer, count) + payload
    checksum = calc_crc32c(tail) if crc is None else crc
    rest = struct.pack(">ibI", -1, magic, checksum) + tail
    return struct.pack(">qi", base, len(rest)) + rest


def at_base(built: bytes, base: int) -> bytes:
    """The same batch at another offset, as a broker puts it there."""
    return struct.pack(">q", base) + built[8:]


def message(value: bytes, magic: int, offset: int = 0) -> bytes:
    """A message of format 0 or 1."""
    import zlib

    body = struct.pack(">bb", magic, 0) + (struct.pack(">q", AT_MS) if magic else b"")
    body += struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    body = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", offset, len(body)) + body


def pack(plain: bytes, codec: int) -> bytes:
    """One stream of a codec, as producers write it."""
    match codec:
        case 0:
            return plain
        case 1:
            return gzip.compress(plain, mtime=0)
        case 2:
            return bytes(cramjam.snappy.compress_raw(plain))
        case 3:
            frame = cramjam.lz4.Compressor(
                content_checksum=False, block_linked=False
            )  # Java reads no linked ones
            frame.compress(plain)
            return bytes(frame.finish())
        case _:
            return bytes(cramjam.zstd.compress(plain))


def xerial(*blocks: bytes) -> bytes:
    """The framing of Java's snappy library."""
    framed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for block in blocks:
        packed = bytes(cramjam.snappy.compress_raw(block))
        framed += struct.pack(">i", len(packed)) + packed
    return framed


class RawProducer:
    """A connection to one broker that sends batches as they are."""

    def __init__(self, bootstrap_servers: str) -> None:
        host, port = bootstrap_servers.split(",", maxsplit=1)[0].rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def produce(self, topic: str, partition: int, batches: bytes) -> tuple[int, int]:
        """(the broker's error or 0, the offset of the first)."""
        name = topic.encode()
        body = struct.pack(">hhi", -1, -1, 30_000) + struct.pack(">i", 1)
        body += (
            struct.pack(">h", len(name)) + name + struct.pack(">iii", 1, partition, len(batches)) + batches
        )
        head = struct.pack(">hhi", PRODUCE, PRODUCE_VERSION, 1) + struct.pack(">h", 3) + b"raw"
        self._socket.sendall(struct.pack(">i", len(head + body)) + head + body)
        (size,) = struct.unpack(">i", self._exactly(4))
        answer = self._exactly(size)
        _, error, offset = struct.unpack_from(">ihq", answer, 4 + 4 + 2 + len(name) + 4)
        return error, offset

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            assert more, "the broker has closed the connection"
            data += more
        return data
