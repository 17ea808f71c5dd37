"""The ordinary ClientUpdate, read over its record's bytes without a copy of what its tensors hold.

Nothing is decided here. What every encoder writes for an ordinary update is read, in its one encoding; of all else is
said None, and it is read by the rules of its task (``schemas.canonical``, ``schemas.avro``), which say what is wrong
with it or understand it after all. So whatever is read here, these read as the same. Ordinary is: no negative numbers
and none beyond 2**48, at most ``ITEMS_MAX`` items, each key once, a time between 1970 and 2100.
"""

from __future__ import annotations

import struct
from typing import Any, Final, cast

from schemas.avro import HEADER_BYTES, Schema, schema_for

KIND: Final = "ClientUpdate"
ITEMS_MAX: Final = 4096
"""Tensors, their dimensions and metrics together: far below where either reading counts."""
CREATED_MS_MAX: Final = 4_102_444_800_000
"""The year 2100."""
_MORE: Final = 0x80
_NUMBER_SHIFT_MAX: Final = 42
"""Seven bytes of a number: times take six, and nothing that is ordinary takes more."""
_DOUBLE: Final = struct.Struct("<d").unpack_from
_DOUBLE_BYTES: Final = 8
_ODD: Final = (IndexError, ValueError, struct.error)
"""What reading raises on anything else: beyond the end, not UTF-8, or not ordinary."""


def is_view(payload: object) -> bool:
    """Whether a payload is one of ``parts_of``."""
    return isinstance(payload, memoryview)


def parts_of(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Payload (a view of ``data``), certificate and signature of an ordinary envelope of a ClientUpdate; None else."""
    if not data.startswith(schema_for("SignedEnvelope").header):
        return None
    try:
        kind, at = _text(data, HEADER_BYTES)
        begin, end = _span(data, at)
        certificate_at, certificate_end = _span(data, end)
        signature_at, signature_end = _span(data, certificate_end)
    except _ODD:
        return None
    if kind != KIND or signature_end != len(data):
        return None
    payload = cast("bytes", memoryview(data)[begin:end])  # whoever has it reads and hashes it, as bytes
    return payload, data[certificate_at:certificate_end], data[signature_at:signature_end]


def update_in(payload: bytes, schema: Schema) -> dict[str, Any] | None:
    """The fields of an ordinary ClientUpdate, whose tensors' ``data`` are views; None for anything else."""
    try:
        record, at = _update(payload, schema)
    except _ODD:
        return None
    return record if at == len(payload) else None


def _update(data: bytes, schema: Schema) -> tuple[dict[str, Any], int]:
    record: dict[str, Any] = {}
    record["task"], at = _text(data, HEADER_BYTES)
    record["region"], at = _text(data, at)
    record["device_id"], at = _text(data, at)
    record["base_version"], at = _number(data, at)
    record["base_sha256"], at = _text(data, at)
    record["update_id"], at = _text(data, at)
    record["num_examples"], at = _number(data, at)
    (record["local_loss"],) = _DOUBLE(data, at)
    record["codec"], at = _codec(data, at + _DOUBLE_BYTES, schema)
    count, at = _number(data, at)
    left, tensors = ITEMS_MAX - count, []
    for _ in range(_bounded(count, left)):
        name, at = _text(data, at)
        dimensions, at = _number(data, at)
        left -= dimensions
        shape = []
        for _ in range(_bounded(dimensions, left)):
            size, at = _number(data, at)
            shape.append(size)
        at = _ended(data, at, dimensions)
        (scale,) = _DOUBLE(data, at)
        begin, at = _span(data, at + _DOUBLE_BYTES)
        tensors.append({"name": name, "shape": shape, "scale": scale, "data": data[begin:at]})
    record["tensors"], at = tensors, _ended(data, at, count)
    record["client_metrics"], at = _metrics(data, at, left)
    record["created_at"], at = _number(data, at)
    _bounded(0, CREATED_MS_MAX - record["created_at"])
    return record, at


def _metrics(data: bytes, at: int, left: int) -> tuple[dict[str, float], int]:
    found: dict[str, float] = {}
    count, at = _number(data, at)
    for _ in range(_bounded(count, left - count)):
        key, at = _text(data, at)
        (found[key],) = _DOUBLE(data, at)
        at += _DOUBLE_BYTES
    _bounded(0, len(found) - count)  # each key once
    return found, _ended(data, at, count)


def _codec(data: bytes, at: int, schema: Schema) -> tuple[str, int]:
    if schema.version > 1:
        return _text(data, at)
    number, at = _number(data, at)
    return ("int8", "float32")[number], at


def _bounded(count: int, left: int) -> int:
    if left < 0:
        raise ValueError(left)
    return count


def _ended(data: bytes, at: int, count: int) -> int:
    """Behind the 0 that ends the one block of an array or map; nothing stands behind a count of 0."""
    if not count:
        return at
    if data[at]:
        raise ValueError(at)
    return at + 1


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number that is not negative, in the fewest bytes, and where it ends."""
    byte = data[at]
    at += 1
    if byte < _MORE:
        value = byte
    else:
        value, shift = byte & 0x7F, 7
        while byte >= _MORE:
            if shift > _NUMBER_SHIFT_MAX:
                raise ValueError(at)
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
        if not byte:
            raise ValueError(at)
    if value & 1:
        raise ValueError(at)
    return value >> 1, at


def _span(data: bytes, at: int) -> tuple[int, int]:
    """Where the bytes begin whose length stands at ``at``, and where they end."""
    length, begin = _number(data, at)
    end = begin + length
    if end > len(data):
        raise ValueError(at)
    return begin, end


def _text(data: bytes, at: int) -> tuple[str, int]:
    begin, end = _span(data, at)
    return str(data[begin:end], "utf-8"), end
