"""A reader of records written from the Avro specification's words and ``schemas/README.md``: for the fuzzer only.

It walks a list of what is still to come instead of calling itself, checks every value when it is whole, and knows no
library. It says the first flaw and where the flawed value begins, as a verdict has to.
"""

from __future__ import annotations

import json
import struct
from functools import cache, partial
from pathlib import Path
from typing import Any

AVSC = Path(__file__).parents[2] / "schemas" / "avsc"
HEADER = 10
ITEMS_MAX = 100_000
FIRST_MS = -62135596800000
LAST_MS = 253402300799999


class Refused(Exception):
    """(flaw, where), or (what is wrong with the whole, -1)."""


@cache
def schema(name: str, version: int) -> dict[str, Any]:
    """A released schema as its file says it."""
    document: dict[str, Any] = json.loads((AVSC / f"{name}.v{version}.avsc").read_text())
    return document


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where the next value begins."""
    groups = []
    for place in range(at, at + 10):
        if place >= len(data):
            raise Refused("cut_short", at)
        groups.append(data[place] & 0b0111_1111)
        if data[place] < 0b1000_0000:
            break
    else:
        raise Refused("wide_number", at)
    bits = "".join(f"{group:07b}" for group in reversed(groups)).lstrip("0")
    if len(bits) > 64:
        raise Refused("wide_number", at)
    if len(groups) > 1 and groups[-1] == 0:
        raise Refused("long_number", at)
    raw = int(bits or "0", 2)
    return (raw // 2 if raw % 2 == 0 else -(raw // 2) - 1), at + len(groups)


def text(data: bytes) -> str | None:
    """What UTF-8 means, by RFC 3629's table; None where it is none."""
    found, at = [], 0
    while at < len(data):
        lead = data[at]
        size = 1 if lead < 0x80 else 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4
        if 0x80 <= lead < 0xC2 or lead > 0xF4 or at + size > len(data):
            return None
        code = lead if size == 1 else lead & (0x7F >> size)
        for byte in data[at + 1 : at + size]:
            if byte & 0xC0 != 0x80:
                return None
            code = code << 6 | byte & 0x3F
        if code < (0, 0x80, 0x800, 0x10000)[size - 1] or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            return None
        found.append(chr(code))
        at += size
    return "".join(found)


def sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes behind their length."""
    length, begin = varint(data, at)
    if length < 0:
        raise Refused("negative_length", at)
    if length > len(data) - begin:
        raise Refused("cut_short", at)
    return data[begin : begin + length], begin + length


def read(data: bytes, document: dict[str, Any]) -> dict[str, Any]:
    """The record behind a header of ten bytes. ``Refused`` for what is not its one encoding."""
    result: list[Any] = []
    walk = Walk(data, document["name"] == "ClientUpdate")
    walk.todo.append(("value", document, result.append))
    while walk.todo:
        what, about, put = walk.todo.pop()
        walk.steps[what](about, put)
    if walk.at != len(data):
        raise Refused("bytes_left", -1)
    found: dict[str, Any] = result[0]
    return found


class Walk:
    """Where the reader is, and the tasks to come, the next one last: (what, its schema, where its value goes)."""

    def __init__(self, data: bytes, counted: bool) -> None:  # noqa: FBT001
        self.data = data
        self.at = HEADER
        self.items = ITEMS_MAX if counted else 1 << 80
        self.todo: list[tuple[str, Any, Any]] = []
        self.steps = {"value": self.value, "key": self.key, "end": self.end}

    def end(self, _: Any, __: Any) -> None:
        """The 0 behind a block."""
        count, after = varint(self.data, self.at)
        if count != 0:
            raise Refused("blocks", self.at)
        self.at = after

    def key(self, about: Any, put: dict[str, Any]) -> None:
        """A map's key; its value is the next task."""
        begin = self.at
        raw, self.at = sized(self.data, begin)
        name = text(raw)
        if name is None:
            raise Refused("not_utf8", begin)
        if name in put:
            raise Refused("key_twice", begin)
        put[name] = None
        self.todo.append(("value", about, lambda value: put.update({name: value})))

    def value(self, about: Any, put: Any) -> None:
        """A value; what is inside of it are the next tasks."""
        kind = about if isinstance(about, str) else about["type"]
        if isinstance(kind, dict):
            self.todo.append(("value", kind, put))
        elif kind == "record":
            record: dict[str, Any] = {}
            put(record)
            for field in reversed(about["fields"]):
                self.todo.append(("value", field["type"], partial(record.__setitem__, field["name"])))
        elif kind in {"array", "map"}:
            self.block(about, put, named=kind == "map")
        else:
            found, self.at = scalar(self.data, self.at, kind, about)
            put(found)

    def block(self, about: Any, put: Any, *, named: bool) -> None:
        """The count of a block, and a task for each item that there could be."""
        count, after = varint(self.data, self.at)
        if count < 0:
            raise Refused("blocks", self.at)
        self.items -= count
        if self.items < 0:
            raise Refused("too_many_items", -1)
        self.at = after
        entries: Any = {} if named else []
        put(entries)
        task = ("key", about["values"], entries) if named else ("value", about["items"], entries.append)
        if count:
            self.todo += [("end", None, None)] + [task] * min(count, len(self.data))


def scalar(data: bytes, at: int, kind: str, about: Any) -> tuple[Any, int]:
    """One value that holds no other."""
    if kind == "double":
        if len(data) - at < 8:
            raise Refused("cut_short", at)
        return struct.unpack("<d", data[at : at + 8])[0], at + 8
    if kind in {"bytes", "string"}:
        raw, after = sized(data, at)
        value = raw if kind == "bytes" else text(raw)
        if value is None:
            raise Refused("not_utf8", at)
        return value, after
    number, after = varint(data, at)
    if kind == "enum":
        if not 0 <= number < len(about["symbols"]):
            raise Refused("no_symbol", at)
        return about["symbols"][number], after
    is_time = isinstance(about, dict) and about.get("logicalType") == "timestamp-millis"
    if is_time and not FIRST_MS <= number <= LAST_MS:
        raise Refused("no_time", at)
    return number, after
