"""Verdicts as they stand in their topics: words in v1, a reason's code and values in v2 (ADR 29).

A verdict's bytes are published, and compared with those that stand there already; so they hold nothing that another
interpreter or library could say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aggregation.fold.events import Verdict
from aggregation.reasons import VALUE_CHARACTERS_MAX, Reason, Value, because, reason_of, said
from schemas import avro as codec

if TYPE_CHECKING:
    from aggregation.fold.rules import RecordRules
    from aggregation.reasons import Because

RECORD: Final = "Verdict"
DETAIL_MAX: Final = 300
"""Characters of the words in a Verdict of v1."""
_SHARED: Final = (
    "offset",
    "outcome",
    "device_id",
    "update_id",
    "base_version",
    "staleness",
    "weight",
    "clip",
    "norm",
    "norm_deviations",
    "cosine",
)


def encode_verdict(verdict: Verdict, rules: RecordRules) -> bytes:
    """A verdict as it stands in the topic of a task with these rules."""
    record: dict[str, Any] = {name: getattr(verdict, name) for name in _SHARED}
    why = verdict.because
    if rules.verdicts == 1:
        return codec.encode_as(RECORD, 1, record | {"detail": why.text[:DETAIL_MAX]})
    if why.reason.code < 0:
        raise ValueError(f"{why.reason} stands in no verdict")  # words that were read from one: a defect
    return codec.encode_as(
        RECORD, 2, record | {"reason": why.reason.code, "values": _values(why), "forged": why.forged}
    )


def decode_verdict(data: bytes) -> Verdict:
    """The inverse of ``encode_verdict``, whatever version is written; raises ``codec.CodecError``."""
    schema, record = codec.decode(data)
    if schema.name != RECORD:
        raise codec.CodecError(because(Reason.ANOTHER_RECORD, RECORD, schema.name))
    if schema.version == 1:
        return Verdict(because=said(record.pop("detail")), **record)
    why = reason_of(record.pop("reason"), tuple(record.pop("values")), record.pop("forged"))
    return Verdict(because=why, **record)


def _values(why: Because) -> list[Value]:
    """A reason's values, of the types that its table says; what a device wrote is cut."""
    return [
        kind(one)[:VALUE_CHARACTERS_MAX] if kind is str else kind(one)
        for kind, one in zip(why.reason.fields.values(), why.values, strict=True)
    ]
