"""Records as no encoder should write them: the choices that Avro leaves open, taken at random, and bytes changed."""

from __future__ import annotations

import random
import struct
from typing import Any

from tests.fuzz import avro_by_words

NUMBERS = (
    0,
    1,
    -1,
    63,
    64,
    -64,
    -65,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    -(2**63) - 1,
    2**70,
)
TIMES = (
    avro_by_words.FIRST_MS,
    avro_by_words.FIRST_MS - 1,
    avro_by_words.LAST_MS,
    avro_by_words.LAST_MS + 1,
    0,
)
DOUBLES = (
    "0000000000000000", "0000000000000080", "000000000000f03f", "000000000000f07f", "000000000000f8ff",
    "010000000000f07f", "deadbeef0000f87f", "ffffffffffffffff", "0100000000000000",
)  # fmt: skip
TEXTS = (
    b"", b"digits", b"\x00", "ä−𝄞\U0001fae8".encode(), b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xe2\x82", b"\xf0\x9f\xab\xa8", b"\xef\xbf\xbf", b"\x1b[2J",
)  # fmt: skip


class Loose:
    """Writes records of a schema with random values. ``odd`` is how often it chooses what no encoder should."""

    def __init__(self, rng: random.Random, odd: float) -> None:
        self.rng = rng
        self.odd = odd

    def is_odd(self) -> bool:
        """Whether to choose what no encoder should, this time."""
        return self.rng.random() < self.odd

    def number(self, value: int) -> bytes:
        """A number, now and then in more bytes than it needs."""
        raw = 2 * value if value >= 0 else -2 * value - 1
        out = bytearray()
        while raw > 127:
            out.append(raw & 127 | 128)
            raw >>= 7
        out.append(raw)
        if self.is_odd():
            out[-1] |= 128
            out += b"\x80" * self.rng.choice((0, 0, 1, max(0, 8 - len(out)), 9)) + b"\0"
        return bytes(out)

    def text(self) -> bytes:
        """A string's bytes, now and then no UTF-8."""
        if self.is_odd():
            return self.rng.choice(TEXTS)
        return self.rng.choice(TEXTS[:4])

    def sized(self, data: bytes) -> bytes:
        """Bytes behind their length, now and then a wrong one."""
        length = len(data)
        if self.is_odd():
            length = self.rng.choice((length + 1, max(0, length - 1), -1, -length, 2**62, 2**31))
        return self.number(length) + data

    def value(self, schema: Any) -> bytes:
        """One value."""
        rng = self.rng
        kind = schema if isinstance(schema, str) else schema["type"]
        match kind:
            case "record":
                return b"".join(self.value(field["type"]) for field in schema["fields"])
            case "array":
                return self.items([self.value(schema["items"]) for _ in range(rng.choice((0, 1, 1, 2, 3)))])
            case "map":
                keys = [self.text() for _ in range(rng.choice((0, 1, 2)))]
                keys = keys if self.is_odd() else list(dict.fromkeys(keys))
                return self.items([self.sized(key) + self.value(schema["values"]) for key in keys])
            case "enum":
                count = len(schema["symbols"])
                return self.number(rng.choice((count, -1)) if self.is_odd() else rng.randrange(count))
            case "double":
                return (
                    bytes.fromhex(rng.choice(DOUBLES))
                    if rng.random() < 0.5
                    else struct.pack("<d", rng.gauss(0, 9))
                )
            case "bytes":
                return self.sized(rng.randbytes(rng.choice((0, 1, 5, 70))))
            case "string":
                return self.sized(self.text())
            case "long":
                return self.long(schema)
            case _:
                return self.value(kind)

    def long(self, schema: Any) -> bytes:
        """A number of any size that a long has, now and then a larger one."""
        if isinstance(schema, dict) and "logicalType" in schema:
            return self.number(self.rng.choice(TIMES if self.is_odd() else TIMES[::2]))
        return self.number(self.rng.choice(NUMBERS if self.is_odd() else NUMBERS[:12]))

    def items(self, items: list[bytes]) -> bytes:
        """An array's or map's items, now and then in more blocks than one, or in one that says its size."""
        if not items:
            return self.number(0)
        cut = self.rng.randrange(1, len(items) + 1) if self.is_odd() else len(items)
        out = bytearray()
        for block in (items[:cut], items[cut:]):
            data = b"".join(block)
            if block and self.is_odd():
                out += self.number(-len(block)) + self.number(len(data)) + data
            elif block:
                out += self.number(len(block)) + data
        return bytes(out) + self.number(0)


def changed(rng: random.Random, body: bytes) -> bytes:
    """A few bytes flipped, cut out, doubled, put in or cut off."""
    out = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.choice((0, 1, 2, 127, 128, 255))
            case 2:
                del out[at : at + rng.choice((1, 2, 9))]
            case 3:
                out[at:at] = rng.choice((b"\0", b"\x80", b"\x80\0", b"\x01", rng.randbytes(3)))
            case 4:
                out[at:at] = out[at : at + rng.choice((1, 4, 11))]
            case _:
                del out[at:]
    return bytes(out)
