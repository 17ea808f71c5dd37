"""Batches by which readers could be told apart: what each is, what it comes to, and what a broker does with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.raw_batches import (
    CONTROL,
    GZIP,
    LZ4,
    NAMES,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    batch,
    message,
    pack,
    record,
    varint,
    xerial,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REGULAR: Final = "regular"
REFUSED: Final = "neither key nor value"
TOO_LARGE: Final = "too large"
DAMAGED: Final = "damaged"
OVER_THE_BOUND: Final = 100_000_001

Values = tuple[bytes, bytes]


@dataclass(frozen=True)
class Odd:
    """One shape: ``build`` makes it of two values, it covers ``offsets``, and comes to ``kind``.

    ``stored``: whether a broker (4.1) takes it from a producer.
    """

    name: str
    build: Callable[[Values], bytes]
    kind: str
    offsets: int = 2
    stored: bool = False

    def __str__(self) -> str:
        return self.name


def plain(values: Values) -> bytes:
    """Two records, as they have to be."""
    return record(values[0], 0, key=b"k") + record(values[1], 1)


def as_producers(codec: int) -> Callable[[Values], bytes]:
    return lambda values: pack(plain(values), codec)


def one_by_one(values: Values) -> tuple[bytes, bytes]:
    return record(values[0], 0, key=b"k"), record(values[1], 1)


def packed(name: str, codec: int, build: Callable[[Values], bytes], kind: str, **more: bool) -> Odd:
    """A batch of two whose payload is ``build``'s."""
    return Odd(f"{NAMES[codec]}, {name}", lambda values: batch(build(values), 2, codec=codec), kind, **more)


def bomb(codec: int) -> Odd:
    def build(values: Values) -> bytes:
        return batch(pack(record(bytes(OVER_THE_BOUND), 0) + record(values[1], 1), codec), 2, codec=codec)

    return Odd(f"{NAMES[codec]}, a bomb", build, TOO_LARGE, stored=True)


def twice(values: Values, codec: int) -> bytes:
    return b"".join(pack(one, codec) for one in one_by_one(values))


def behind_a_skipped(values: Values, codec: int) -> bytes:
    return struct.pack("<II", 0x184D2A50, 4) + b"skip" + pack(plain(values), codec)


def deltas(*numbers: int, codec: int = 0) -> Callable[[Values], bytes]:
    def build(values: Values) -> bytes:
        records = b"".join(record(value, delta) for value, delta in zip(values, numbers, strict=False))
        return batch(pack(records, codec), len(numbers), codec=codec)

    return build


def of_two(
    payload: Callable[[Values], bytes], count: int = 2, last_delta: int | None = None
) -> Callable[[Values], bytes]:
    return lambda values: batch(payload(values), count, last_delta=last_delta)


REGULAR_SHAPES: Final = (
    *(packed("as producers write it", codec, as_producers(codec), REGULAR, stored=True) for codec in NAMES),
    packed("framed as by Java", SNAPPY, lambda v: xerial(plain(v)), REGULAR, stored=True),
    packed("framed, in two blocks", SNAPPY, lambda v: xerial(*one_by_one(v)), REGULAR, stored=True),
    Odd(
        "an idempotent producer's",
        lambda v: batch(plain(v), 2, producer=(987_654_321, 0, 0)),
        REGULAR,
        stored=True,
    ),
    Odd(
        "a transaction's", lambda v: batch(plain(v), 2, attributes=TRANSACTIONAL, producer=(7, 0, 0)), REGULAR
    ),
    Odd(
        "a header's name that is not UTF-8",
        of_two(lambda v: record(v[0], 0, key=b"k", headers=[(b"\xff\xfe", b"")]) + record(v[1], 1)),
        REGULAR,
        stored=True,
    ),
    Odd(
        "attributes that look like the beginning of a number",
        of_two(lambda v: record(v[0], 0, key=b"k", attributes=0x80) + record(v[1], 1)),
        REGULAR,
        stored=True,
    ),
    Odd(
        "a number longer than it need be",
        of_two(lambda v: record(v[0], 0, key=b"k", delta_bytes=5) + record(v[1], 1)),
        REGULAR,
        stored=True,
    ),
)

ODD_NUMBERS: Final = (
    Odd("a delta of 60", deltas(60), REFUSED, 1, stored=True),
    Odd("a delta of 2**31 - 2", deltas(2**31 - 2), REFUSED, 1, stored=True),
    Odd("a delta below zero", deltas(-1), REFUSED, 1, stored=True),
    Odd("the same delta twice", deltas(0, 0), REFUSED, stored=True),
    Odd("deltas in disorder", deltas(1, 0), REFUSED, stored=True),
    Odd("deltas that leave one out", deltas(0, 2), REFUSED, stored=True),
    Odd("gzip, a delta of 60", deltas(60, codec=GZIP), REFUSED, 1),
    Odd("zstd, deltas in disorder", deltas(1, 0, codec=ZSTD), REFUSED),
    Odd("more records said than there", of_two(plain, 3), REFUSED, 3),
    Odd("fewer records said than there", of_two(plain, 1), REFUSED, 1),
    Odd("offsets covered without records", of_two(lambda v: record(v[0], 0), 1, last_delta=5), REFUSED, 6),
    Odd("no records at all", of_two(lambda _: b"", 0, last_delta=1), REFUSED),
    Odd(
        "two billion offsets covered", of_two(lambda v: record(v[0], 0), 1, last_delta=2**31 - 2), REFUSED, 9
    ),
    Odd("no offset covered", of_two(plain, 2, last_delta=-1), REFUSED, 0),
)

ODD_RECORDS: Final = (
    Odd("bytes behind the last record", of_two(lambda v: plain(v) + b"\0"), REFUSED),
    Odd("a record without a byte", of_two(lambda v: varint(0) + record(v[1], 1)), REFUSED),
    Odd(
        "a record of a length below zero",
        of_two(lambda v: record(v[0], 0, length=-9) + record(v[1], 1)),
        REFUSED,
    ),
    Odd(
        "a record longer than the batch",
        of_two(lambda v: record(v[0], 0) + record(v[1], 1, length=9999)),
        REFUSED,
    ),
    Odd(
        "a record shorter than its value",
        of_two(lambda v: record(v[0], 0, length=7) + record(v[1], 1)),
        REFUSED,
    ),
    Odd("a number of six bytes", of_two(lambda v: record(v[0], 0, delta_bytes=6) + record(v[1], 1)), REFUSED),
    Odd("a marker that a client writes", lambda v: batch(plain(v), 2, attributes=CONTROL), REFUSED),
    Odd("a codec that there is none of", lambda v: batch(plain(v), 2, codec=6), REFUSED),
    Odd("a message of format 0", lambda v: message(v[0], 0), REFUSED, 1),
    Odd("a message of format 1", lambda v: message(v[0], 1), REFUSED, 1),
)

ODD_STREAMS: Final = (
    packed("two members", GZIP, lambda v: twice(v, GZIP), REFUSED, stored=True),
    packed(
        "an empty second member", GZIP, lambda v: pack(plain(v), GZIP) + pack(b"", GZIP), REFUSED, stored=True
    ),
    packed("bytes behind it", GZIP, lambda v: pack(plain(v), GZIP) + b"behind", REFUSED, stored=True),
    packed("cut", GZIP, lambda v: pack(plain(v), GZIP)[:-9], REFUSED),
    packed(
        "two streams", SNAPPY, lambda v: b"".join(xerial(one) for one in one_by_one(v)), REFUSED, stored=True
    ),
    packed("bytes behind it", SNAPPY, lambda v: xerial(plain(v)) + b"\0\0", REFUSED, stored=True),
    packed("two frames", LZ4, lambda v: twice(v, LZ4), REFUSED),
    packed(
        "a second frame that the count leaves out",
        LZ4,
        lambda v: pack(plain(v), LZ4) + pack(b"", LZ4),
        REFUSED,
        stored=True,
    ),
    packed("bytes behind it", LZ4, lambda v: pack(plain(v), LZ4) + b"behind", REFUSED, stored=True),
    packed("behind a frame to skip", LZ4, lambda v: behind_a_skipped(v, LZ4), REFUSED),
    packed("cut", LZ4, lambda v: pack(plain(v), LZ4)[:-5], REFUSED),
    packed("two frames", ZSTD, lambda v: twice(v, ZSTD), REFUSED, stored=True),
    packed(
        "an empty second frame", ZSTD, lambda v: pack(plain(v), ZSTD) + pack(b"", ZSTD), REFUSED, stored=True
    ),
    packed("behind a frame to skip", ZSTD, lambda v: behind_a_skipped(v, ZSTD), REFUSED, stored=True),
    packed("bytes behind it", ZSTD, lambda v: pack(plain(v), ZSTD) + b"behind", REFUSED),
    *(packed("not it at all", codec, plain, REFUSED) for codec in (GZIP, SNAPPY, LZ4, ZSTD)),
    *(packed("nothing in it", codec, lambda _: b"", REFUSED) for codec in (GZIP, SNAPPY, LZ4, ZSTD)),
    *(bomb(codec) for codec in (GZIP, SNAPPY, LZ4, ZSTD)),
)

DAMAGES: Final = (
    Odd("a wrong checksum", lambda v: batch(plain(v), 2, crc=1), DAMAGED),
    Odd("a format that there is none of", lambda v: batch(plain(v), 2, magic=7), DAMAGED),
    Odd(
        "a length that its own header does not fit into",
        lambda v: struct.pack(">qi", 0, 30) + batch(plain(v), 2)[12:],
        DAMAGED,
    ),
)

READABLE: Final = (*REGULAR_SHAPES, *ODD_NUMBERS, *ODD_RECORDS, *ODD_STREAMS)
