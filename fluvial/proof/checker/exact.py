"""The canonical rules of records, by another way than the workers': read what the bytes say, write that, compare.

The reader takes whatever the Avro specification allows; the writer knows one encoding for each value. Bytes that the
writer does not give again are not canonical, whatever is wrong with them. Doubles stay the eight bytes that they are.
"""

from __future__ import annotations

import struct
from typing import Any, Final

ITEMS_MAX: Final = 100_000
"""Items of all arrays and maps of a ClientUpdate."""
TIMES_MS: Final = range(-62_135_596_800_000, 253_402_300_800_000)
"""Milliseconds of the years 1 to 9999, since 1970."""
INT64: Final = range(-(1 << 63), 1 << 63)
_DIGITS_MAX: Final = 10


class NotCanonical(ValueError):
    """Bytes that are no record, or not the one encoding of theirs."""


def read(body: bytes, schema: Any, *, counted: bool) -> dict[str, Any]:
    """The record whose encoding, without its header, is ``body``; ``schema`` is the Avro document as JSON has it.

    ``counted``: it may hold ``ITEMS_MAX`` items. ``NotCanonical`` unless writing the record gives ``body`` again.
    """
    reader = _Reader(body, ITEMS_MAX if counted else len(body))
    record = reader.value(schema)
    if reader.at != len(body):
        raise NotCanonical("bytes to spare")
    written = bytearray()
    _write(written, schema, record)
    if written != body:
        raise NotCanonical("another encoding of the same")
    found = _plain(schema, record)
    assert isinstance(found, dict)
    return found


class _Reader:
    """Reads values one after another, in whatever of their encodings."""

    def __init__(self, data: bytes, items_max: int) -> None:
        self.data = data
        self.at = 0
        self.items_left = items_max

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self.data) - self.at:
            raise NotCanonical("cut short, or a length below 0")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        """Seven bits a byte, the lowest first; zigzag."""
        total = 0
        for place in range(_DIGITS_MAX):
            (byte,) = self.take(1)
            total |= (byte & 127) << (7 * place)
            if byte < 128:  # noqa: PLR2004
                return total // 2 if total % 2 == 0 else -(total + 1) // 2
        raise NotCanonical("a number without an end")

    def value(self, schema: Any) -> Any:
        """One value of a schema. KeyError for a type that none of ours has."""
        kind = _kind(schema)
        match kind:
            case "union":
                return (which := self.branch(schema)), self.value(schema[which])
            case "long" | "enum":
                return self.number()
            case "double":
                return self.take(8)
            case "bytes" | "string":
                return self.take(self.number())
            case "record":
                return {field["name"]: self.value(field["type"]) for field in schema["fields"]}
            case "array":
                return [self.value(schema["items"]) for _ in self.items()]
            case "map":
                return [(self.take(self.number()), self.value(schema["values"])) for _ in self.items()]
            case dict():
                return self.value(kind)
            case _:
                raise KeyError(kind)

    def branch(self, schema: list[Any]) -> int:
        """Which type of a union follows."""
        which = self.number()
        if which not in range(len(schema)):
            raise NotCanonical("no type of its union")
        return which

    def items(self) -> Any:
        """Once an item, over all blocks."""
        while count := self.number():
            if count < 0:
                self.number()
            for _ in range(abs(count)):
                self.items_left -= 1
                if self.items_left < 0:
                    raise NotCanonical("too many items")
                yield


def _write_number(out: bytearray, value: int) -> None:
    if value not in INT64:
        raise NotCanonical("more than 64 bits")
    rest = 2 * value if value >= 0 else -2 * value - 1
    while rest > 127:  # noqa: PLR2004
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)


def _kind(schema: Any) -> Any:
    """The type's name, "union" for a list; a schema where a type is written as one."""
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else schema["type"]


def _write(out: bytearray, schema: Any, value: Any) -> None:
    kind = _kind(schema)
    match kind:
        case "union":
            which, inner = value
            _write_number(out, which)
            _write(out, schema[which], inner)
        case "long" | "enum":
            _write_number(out, value)
        case "double":
            out += value
        case "bytes" | "string":
            _write_number(out, len(value))
            out += value
        case "record":
            for field in schema["fields"]:
                _write(out, field["type"], value[field["name"]])
        case "array":
            _write_items(out, [[(schema["items"], one)] for one in value])
        case "map":
            _write_items(out, [[("string", key), (schema["values"], one)] for key, one in value])
        case _:
            _write(out, kind, value)


def _write_items(out: bytearray, items: list[list[tuple[Any, Any]]]) -> None:
    """One block, where there is anything, and the 0 that ends it."""
    if items:
        _write_number(out, len(items))
    for parts in items:
        for schema, value in parts:
            _write(out, schema, value)
    out.append(0)


def _plain(schema: Any, value: Any) -> Any:
    """What a value means: text, symbols, floats; ``NotCanonical`` for one that its type does not have."""
    kind = _kind(schema)
    match kind:
        case "union":
            which, inner = value
            return _plain(schema[which], inner)
        case "record":
            return {field["name"]: _plain(field["type"], value[field["name"]]) for field in schema["fields"]}
        case "array":
            return [_plain(schema["items"], one) for one in value]
        case "map":
            found = {_text(key): _plain(schema["values"], one) for key, one in value}
            if len(found) != len(value):
                raise NotCanonical("a key twice")
            return found
        case dict():
            return _plain(kind, value)
        case _:
            return _scalar(kind, schema, value)


def _scalar(kind: str, schema: Any, value: Any) -> Any:
    match kind:
        case "long":
            timed = isinstance(schema, dict) and schema.get("logicalType") == "timestamp-millis"
            if timed and value not in TIMES_MS:
                raise NotCanonical("no time")
            return value
        case "enum":
            if value not in range(len(schema["symbols"])):
                raise NotCanonical("no symbol")
            return schema["symbols"][value]
        case "double":
            return struct.unpack("<d", value)[0]
        case "string":
            return _text(value)
        case _:
            return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise NotCanonical("no UTF-8") from error
