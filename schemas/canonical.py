"""Reading a record in its one encoding: what any other encoding of it says is refused, never understood.

Avro lets a writer choose: numbers in more bytes than they need, arrays in many blocks, blocks that say their size. Two
libraries, or two builds of one, read such bytes differently, or take what the other refuses. So a record of a task
with ``RecordRules.canonical`` is read here, by rules that leave nothing to choose (``schemas/README.md`` has them as a
table). Whatever passes is what every encoder writes for these values: encoding it again gives the same bytes. That is
checked where the bytes stand, on the way through them; nothing is encoded or copied for it.

Nothing is allocated for a length or a count before its bytes are there. Running out of memory is no flaw of a record:
it is raised as what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final

from aggregation.reasons import Reason, because
from schemas.avro import COUNTED, HEADER_BYTES, CodecError, Schema, registry

ITEMS_MAX: Final = 100_000
"""Items of all arrays and maps of one ClientUpdate together: its tensors, their dimensions, its metrics."""
TIME_MIN_MS: Final = -62_135_596_800_000
"""0001-01-01T00:00:00.000Z, in milliseconds since 1970."""
TIME_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""
NUMBER_BYTES_MAX: Final = 10
_UNBOUNDED: Final = 1 << 64
_DOUBLE: Final = struct.Struct("<d").unpack_from
_DOUBLE_BYTES: Final = 8
_MORE: Final = 0x80
"""The bit of a number's byte that says that more follow."""


class Flaw(Enum):
    """How bytes can differ from a record's one encoding. The names are on the wire, in verdicts."""

    CUT_SHORT = "cut_short"
    """The bytes end within a value, or a length says more than there are."""
    LONG_NUMBER = "long_number"
    """A number, length or count in more bytes than it needs."""
    WIDE_NUMBER = "wide_number"
    """A number, length or count of more than 64 bits."""
    NEGATIVE_LENGTH = "negative_length"
    NOT_UTF8 = "not_utf8"
    BLOCKS = "blocks"
    """An array or map in more than one block, or in a block that says its size."""
    KEY_TWICE = "key_twice"
    NO_SYMBOL = "no_symbol"
    NO_TIME = "no_time"
    """Outside the years 1 to 9999."""


Step = Callable[[bytes, int, list[int]], tuple[Any, int]]
"""Reads one value: (the record's bytes, where it begins, the items that may still come) to (it, where it ends)."""


class _FlawError(Exception):
    """Ends the reading: the flaw, and where the flawed value begins."""

    def __init__(self, flaw: Flaw, at: int) -> None:
        self.flaw = flaw
        self.at = at


class _TooManyItemsError(Exception):
    """Ends the reading."""


def decode(data: bytes, schema: Schema) -> dict[str, Any]:
    """The record in single-object bytes whose header is that of ``schema``. Times are milliseconds since 1970.

    Raises ``CodecError`` for bytes that are not its one encoding: the first flaw, in the order of the bytes.
    """
    items = [ITEMS_MAX if schema.name in COUNTED else _UNBOUNDED]
    try:
        record, at = _step_of(schema.header)(data, HEADER_BYTES, items)
    except _FlawError as error:
        raise CodecError(because(Reason.MALFORMED, schema.name, error.flaw.value, error.at)) from error
    except _TooManyItemsError as error:
        raise CodecError(because(Reason.TOO_MANY_ITEMS, ITEMS_MAX, schema.name)) from error
    if at != len(data):
        raise CodecError(because(Reason.BYTES_LEFT, len(data) - at, schema.name))
    return record  # type: ignore[no-any-return]


@cache
def _step_of(header: bytes) -> Step:
    return _compiled(registry()[header].parsed)


def _compiled(schema: Any) -> Step:
    """The step for a schema as Avro's JSON says it. KeyError for a type that none of our schemas has."""
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    match schema["type"]:
        case "record":
            return _record([(field["name"], _compiled(field["type"])) for field in schema["fields"]])
        case "array":
            return _array(_compiled(schema["items"]))
        case "map":
            return _map(_compiled(schema["values"]))
        case "enum":
            return _enum(tuple(schema["symbols"]))
        case "long" if schema.get("logicalType") == "timestamp-millis":
            return _time
        case kind:
            return _PRIMITIVES[kind]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, in the fewest bytes, and where it ends."""
    if at >= len(data):
        raise _FlawError(Flaw.CUT_SHORT, at)
    byte = data[at]
    if byte < _MORE:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value, shift, end = byte & 0x7F, 7, at + 1
    while byte & _MORE:
        if end - at == NUMBER_BYTES_MAX:
            raise _FlawError(Flaw.WIDE_NUMBER, at)
        if end == len(data):
            raise _FlawError(Flaw.CUT_SHORT, at)
        byte = data[end]
        value |= (byte & 0x7F) << shift
        shift += 7
        end += 1
    if value >> 64:
        raise _FlawError(Flaw.WIDE_NUMBER, at)
    if byte == 0:
        raise _FlawError(Flaw.LONG_NUMBER, at)
    return (value >> 1) ^ -(value & 1), end


def _long(data: bytes, at: int, _: list[int]) -> tuple[int, int]:
    if at < len(data) and (byte := data[at]) < _MORE:
        return (byte >> 1) ^ -(byte & 1), at + 1
    return _number(data, at)


def _time(data: bytes, at: int, _: list[int]) -> tuple[int, int]:
    value, end = _number(data, at)
    if not TIME_MIN_MS <= value <= TIME_MAX_MS:
        raise _FlawError(Flaw.NO_TIME, at)
    return value, end


def _bytes(data: bytes, at: int, _: list[int]) -> tuple[bytes, int]:
    begin, end = _span(data, at)
    return data[begin:end], end


def _span(data: bytes, at: int) -> tuple[int, int]:
    """Where the bytes begin whose length stands at ``at``, and where they end."""
    if at < len(data) and (byte := data[at]) < _MORE and not byte & 1:  # by far the most: a short one
        begin = at + 1
        end = begin + (byte >> 1)
    else:
        length, begin = _number(data, at)
        end = begin + length
        if length < 0:
            raise _FlawError(Flaw.NEGATIVE_LENGTH, at)
    if end > len(data):
        raise _FlawError(Flaw.CUT_SHORT, at)
    return begin, end


def _string(data: bytes, at: int, _: list[int]) -> tuple[str, int]:
    begin, end = _span(data, at)
    try:
        return data[begin:end].decode(), end
    except UnicodeDecodeError as error:
        raise _FlawError(Flaw.NOT_UTF8, at) from error


def _double(data: bytes, at: int, _: list[int]) -> tuple[float, int]:
    end = at + _DOUBLE_BYTES
    if end > len(data):
        raise _FlawError(Flaw.CUT_SHORT, at)
    return _DOUBLE(data, at)[0], end


_PRIMITIVES: Final[dict[str, Step]] = {
    "long": _long, "double": _double, "string": _string, "bytes": _bytes,
}  # fmt: skip


def _record(fields: list[tuple[str, Step]]) -> Step:
    def read(data: bytes, at: int, items: list[int]) -> tuple[dict[str, Any], int]:
        record = {}
        for name, step in fields:
            record[name], at = step(data, at, items)
        return record, at

    return read


def _enum(symbols: tuple[str, ...]) -> Step:
    def read(data: bytes, at: int, _: list[int]) -> tuple[str, int]:
        index, end = _number(data, at)
        if not 0 <= index < len(symbols):
            raise _FlawError(Flaw.NO_SYMBOL, at)
        return symbols[index], end

    return read


def _counted(data: bytes, at: int, items: list[int]) -> tuple[int, int]:
    """The count of a first block; 0 where there is none, and so no items."""
    count, end = _number(data, at)
    if count < 0:
        raise _FlawError(Flaw.BLOCKS, at)
    items[0] -= count
    if items[0] < 0:
        raise _TooManyItemsError
    return count, end


def _ended(data: bytes, at: int) -> int:
    """Behind the 0 that has to follow the one block."""
    if at < len(data) and not data[at]:
        return at + 1
    count, end = _number(data, at)
    if count:
        raise _FlawError(Flaw.BLOCKS, at)
    return end


def _array(item: Step) -> Step:
    def read(data: bytes, at: int, items: list[int]) -> tuple[list[Any], int]:
        found: list[Any] = []
        count, at = _counted(data, at, items)
        if not count:
            return found, at
        for _ in range(count):
            value, at = item(data, at, items)
            found.append(value)
        return found, _ended(data, at)

    return read


def _map(value_of: Step) -> Step:
    def read(data: bytes, at: int, items: list[int]) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        count, at = _counted(data, at, items)
        if not count:
            return found, at
        for _ in range(count):
            begin = at
            key, at = _string(data, at, items)
            if key in found:
                raise _FlawError(Flaw.KEY_TWICE, begin)
            found[key], at = value_of(data, at, items)
        return found, _ended(data, at)

    return read
