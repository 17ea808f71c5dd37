"""Vectors of the one encoding: bytes that read as a record, and ones that another encoding would take for one."""

from __future__ import annotations

from typing import Any, Final

from schemas import avro, canonical
from schemas.avro import CodecError
from tests.factories import update_record
from tests.vectors.wire import FIELDS
from tests.vectors.writing import document, typed

TIME_MIN_MS: Final = canonical.TIME_MIN_MS
TIME_MAX_MS: Final = canonical.TIME_MAX_MS


def number(value: int, bytes_more: int = 0) -> bytes:
    """A zigzag number, in so many bytes more than it needs."""
    zigzag = value << 1 if value >= 0 else ~(value << 1)
    found = bytearray()
    while zigzag > 0x7F:
        found.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    found.append(zigzag)
    for _ in range(bytes_more):
        found[-1] |= 0x80
        found.append(0)
    return bytes(found)


def text(value: bytes) -> bytes:
    """A string of any bytes."""
    return number(len(value)) + value


def _ticks() -> dict[str, bytes]:
    head = avro.schema_for("Tick").header
    good = text(b"digits") + text(b"eu") + number(1) + number(300)
    return {
        "a Tick": head + good,
        "a Tick whose texts have any characters": head
        + text(b"\0")
        + text("é\U0010ffff".encode())
        + number(-1)
        + number(-(1 << 63)),
        "a number in two bytes that needs one": head
        + text(b"digits")
        + text(b"eu")
        + number(1, 1)
        + number(300),
        "a length in two bytes that needs one": head
        + number(6, 1)
        + b"digits"
        + text(b"eu")
        + number(1)
        + number(300),
        "a number of ten bytes that needs two": head
        + text(b"digits")
        + text(b"eu")
        + number(1)
        + number(300, 8),
        "the greatest number": head + text(b"digits") + text(b"eu") + number(1) + number((1 << 63) - 1),
        "a number of 65 bits": head + text(b"digits") + text(b"eu") + number(1) + b"\xff" * 9 + b"\x02",
        "a number of eleven bytes": head + text(b"digits") + text(b"eu") + number(1) + b"\xff" * 10 + b"\x01",
        "a number that is cut short": head + text(b"digits") + text(b"eu") + number(1) + b"\xd8",
        "no last field": head + text(b"digits") + text(b"eu") + number(1),
        "a text that is cut short": head + number(7) + b"digits",
        "a length below 0": head + number(-1) + text(b"eu") + number(1) + number(300),
        "a text that is not UTF-8": head + text(b"\xff") + text(b"eu") + number(1) + number(300),
        "a surrogate in UTF-8": head + text(b"\xed\xa0\x80") + text(b"eu") + number(1) + number(300),
        "a character in more bytes than it needs": head
        + text(b"\xc1\x81")
        + text(b"eu")
        + number(1)
        + number(300),
        "two flaws, of which the first is said": head + number(6, 1) + b"digit\xff" + text(b"eu") + number(1),
        "a byte to spare": head + good + b"\0",
        "a header alone": head,
    }


def _barriers() -> dict[str, bytes]:
    good = avro.encode("Barrier", FIELDS["Barrier"])
    return {f"a symbol of the index {index}": good[:-1] + number(index) for index in (2, 3, -1)}


def _updates() -> dict[str, bytes]:
    record = update_record("d-0001", created_at=0) | {"tensors": [], "client_metrics": {}}
    head = avro.encode("ClientUpdate", record)[:-3]  # without tensors, metrics and time
    tensor = text(b"t") + number(1) + number(4) + number(0) + bytes(8) + text(bytes(4))
    metric, nothing = text(b"m") + bytes(8), number(0)

    def update(tensors: bytes = nothing, metrics: bytes = nothing, created_at: bytes = nothing) -> bytes:
        return head + tensors + metrics + created_at

    two = number(2) + tensor + tensor + nothing
    return {
        "an update of nothing": update(),
        "one block": update(two),
        "two blocks": update(number(1) + tensor + number(1) + tensor + nothing),
        "a block with its size": update(number(-1) + number(len(tensor)) + tensor + nothing),
        "a block that does not end": update(number(1) + tensor),
        "more items than bytes": update(number(1000) + tensor),
        "keys in any order": update(metrics=number(2) + metric + text(b"a") + bytes(8) + nothing),
        "a key twice": update(metrics=number(2) + metric + metric + nothing),
        "two blocks of a map": update(
            metrics=number(1) + metric + number(1) + text(b"a") + bytes(8) + nothing
        ),
        "the first millisecond of the year 1": update(created_at=number(TIME_MIN_MS)),
        "the millisecond before": update(created_at=number(TIME_MIN_MS - 1)),
        "the last millisecond of the year 9999": update(created_at=number(TIME_MAX_MS)),
        "the millisecond behind": update(created_at=number(TIME_MAX_MS + 1)),
        "over the limit of items": update(number(canonical.ITEMS_MAX + 1) + tensor),
        "a double that is no number": update(metrics=number(1) + text(b"m") + b"\xff" * 8 + nothing),
    }


def _envelopes() -> dict[str, bytes]:
    head = avro.schema_for("SignedEnvelope").header
    return {
        "an envelope": head + text(b"Tick") + text(b"") + text(b"") + text(b""),
        "an envelope whose kind's length has a byte more": head + number(4, 1) + b"Tick" + text(b"") * 3,
    }


def encodings() -> dict[str, Any]:
    """Each with the reason's code and values, 0 for a record in its one encoding."""
    cases = []
    for name, data in (_ticks() | _barriers() | _updates() | _envelopes()).items():
        schema, reason, values = avro.schema_of(data), 0, list[Any]()
        try:
            canonical.decode(data, schema)
        except CodecError as error:
            reason, values = error.because.reason.code, list(error.because.values)
        case = {
            "name": name,
            "schema": schema.name,
            "bytes": data.hex(),
            "reason": reason,
            "values": typed(values),
        }
        cases.append(case)
    return document(
        "records in their one encoding (reason 0), and in others, of tasks whose records are canonical", cases
    )
