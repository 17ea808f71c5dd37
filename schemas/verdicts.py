"""Verdicts as they stand in their topics: words in v1, a reason's code and values in v2 (ADR 29).

A verdict's bytes are published, and compared with those that stand there already; so they hold nothing that another
interpreter or library could say otherwise.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Final

from aggregation.fold.events import Verdict
from aggregation.reasons import VALUE_CHARACTERS_MAX, Reason, because, reason_of, said
from schemas import avro as codec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aggregation.fold.rules import RecordRules
    from aggregation.reasons import Because

RECORD: Final = "Verdict"
DETAIL_MAX: Final = 300
"""Characters of the words in a Verdict of v1."""
_FLOATS: Final = struct.Struct("<dddd").pack
_SHORT: Final = tuple(bytes((number,)) for number in range(0x80))
_LONG_MAX: Final = (1 << 63) - 1
_BRANCHES: Final[Mapping[type, bytes]] = {int: b"\x00", float: b"\x02", str: b"\x04"}
"""How a value of ``values`` begins: the place of its type in the union, zigzag."""


def encode_verdict(verdict: Verdict, rules: RecordRules) -> bytes:
    """A verdict as it stands in the topic of a task with these rules.

    It is written out here, for a worker writes one for every record: the library takes five times as long. Raises
    OverflowError for a number of more than 64 bits.
    """
    why = verdict.because
    if rules.verdicts == 1:
        header, reason = _header(1), _text(why.text[:DETAIL_MAX])
    elif why.reason.code < 0:
        raise ValueError(f"{why.reason} stands in no verdict")  # words that were read from one: a defect
    else:
        header = _header(2)
        reason = b"".join((_number(why.reason.code), *_values(why), _text(why.forged)))
    return b"".join(
        (
            header,
            _number(verdict.offset),
            _text(verdict.outcome),
            reason,
            _text(verdict.device_id),
            _text(verdict.update_id),
            _number(verdict.base_version),
            _number(verdict.staleness),
            _number(verdict.weight),
            _FLOATS(verdict.clip, verdict.norm, verdict.norm_deviations, verdict.cosine),
        )
    )


@cache
def _header(version: int) -> bytes:
    return codec.schemas_for(RECORD)[version - 1].header


def _number(value: int) -> bytes:
    """A number as Avro has it: zigzag, seven bits a byte, the low ones first."""
    if not -_LONG_MAX - 1 <= value <= _LONG_MAX:
        raise OverflowError(f"{value} takes more than 64 bits")
    rest = value << 1 if value >= 0 else ~(value << 1)
    if rest < len(_SHORT):
        return _SHORT[rest]
    found = bytearray()
    while rest >= len(_SHORT):
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _number(len(encoded)) + encoded


def _values(why: Because) -> Iterator[bytes]:
    """A reason's values, of the types that its table says, as an array of a union; what a device wrote is cut."""
    if why.values:
        yield _number(len(why.values))
    for kind, one in zip(why.reason.fields.values(), why.values, strict=True):
        yield _BRANCHES[kind]
        if kind is str:
            yield _text(str(one)[:VALUE_CHARACTERS_MAX])
        elif kind is int:
            yield _number(int(one))
        else:
            yield struct.pack("<d", one)
    yield b"\x00"


def decode_verdict(data: bytes) -> Verdict:
    """The inverse of ``encode_verdict``, whatever version is written; raises ``codec.CodecError``."""
    schema, record = codec.decode(data)
    if schema.name != RECORD:
        raise codec.CodecError(because(Reason.ANOTHER_RECORD, RECORD, schema.name))
    if schema.version == 1:
        return Verdict(because=said(record.pop("detail")), **record)
    why = reason_of(record.pop("reason"), tuple(record.pop("values")), record.pop("forged"))
    return Verdict(because=why, **record)
