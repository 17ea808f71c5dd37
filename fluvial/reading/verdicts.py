"""Reading verdicts topics: each offset once, whatever crashes have published twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Verdict
from aggregation.reasons import Because
from aggregation.server.aggregates import Slot
from aggregation.weights.staleness import WEIGHT_ONE
from backends.log import RecordReader
from schemas.avro import CodecError
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

MISSING_MAX: Final = 100_000
"""Offsets that may be remembered as skipped, waiting for a verdict that comes late."""


class Once:
    """Which verdicts come for the first time, from offset ``first`` on. Small: it remembers only what was skipped."""

    def __init__(self, first: int) -> None:
        self.next_offset = first
        self.missing: set[int] = set()

    def is_new(self, offset: int) -> bool:
        """True the first time that an offset comes."""
        if offset >= self.next_offset:
            if offset - self.next_offset + len(self.missing) > MISSING_MAX:
                raise IntegrityProblem(
                    "FLV-6206",
                    f"no verdicts for offsets {self.next_offset} to {offset - 1}",
                    hint="the verdicts topic has lost records; `fluvial lineage --refold` needs only the updates",
                )
            self.missing.update(range(self.next_offset, offset))
            self.next_offset = offset + 1
            return True
        if offset in self.missing:
            self.missing.remove(offset)
            return True
        return False


def read_verdicts(reader: RecordReader, task: str, slot: Slot, first: int, end: int) -> Iterator[Verdict]:
    """The verdicts of the offsets ``first`` to ``end`` - 1 of an updates partition, each once, as far as they exist.

    Every offset has a verdict and duplicates only add records, so that of offset o stands at position o or later.
    """
    topic = verdicts_topic(task, slot[0])
    low, high = reader.bounds(topic, slot[1])
    once = Once(first)
    for record in reader.read(topic, slot[1], max(low, first), high):
        verdict = decoded(record.value, f"{topic}[{slot[1]}]@{record.offset}")
        if first <= verdict.offset < end and once.is_new(verdict.offset):
            yield verdict
        if once.next_offset >= end and not once.missing:
            return


def newest_verdicts(reader: RecordReader, task: str, slot: Slot, count: int) -> Iterator[tuple[int, Verdict]]:
    """The verdicts in the last ``count`` records of a partition, each with the time of its record in milliseconds."""
    topic = verdicts_topic(task, slot[0])
    low, high = reader.bounds(topic, slot[1])
    once: Once | None = None
    for record in reader.read(topic, slot[1], max(low, high - count), high):
        verdict = decoded(record.value, f"{topic}[{slot[1]}]@{record.offset}")
        once = once or Once(verdict.offset)
        if once.is_new(verdict.offset):
            yield record.timestamp_ms, verdict


def decoded(value: bytes | None, where: str) -> Verdict:
    """One verdict; IntegrityProblem FLV-6206 for a record that is none."""
    try:
        return decode_verdict(value or b"")
    except CodecError as error:
        raise IntegrityProblem(
            "FLV-6206", f"not a verdict: {error}", where=where, hint="only workers may write to this topic"
        ) from error


def verdict_document(slot: Slot, verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON: ``weight`` as a fraction, unknown numbers as null.

    ``reason`` and ``values`` are those of ``docs/reasons.md``, null and empty for a verdict that holds words only.
    """
    return {
        "region": slot[0],
        "partition": slot[1],
        "offset": verdict.offset,
        "outcome": verdict.outcome,
        "reason": None if verdict.because.reason.code < 0 else verdict.because.reason.name.lower(),
        "values": {} if verdict.because.reason.code < 0 else values_document(verdict.because),
        "forged": verdict.because.forged or None,
        "detail": verdict.detail,
        "device_id": verdict.device_id or None,
        "update_id": verdict.update_id or None,
        "base_version": verdict.base_version if verdict.base_version >= 0 else None,
        "staleness": verdict.staleness if verdict.staleness >= 0 else None,
        "weight": verdict.weight / WEIGHT_ONE,
        "clip": finite(verdict.clip),
        "norm": finite(verdict.norm),
        "norm_deviations": finite(verdict.norm_deviations),
        "cosine": finite(verdict.cosine),
    }


def values_document(because: Because) -> dict[str, Any]:
    """A reason's values for JSON: a device may have sent what makes a number infinite, which is null there."""
    return {
        name: finite(value) if isinstance(value, float) else value for name, value in because.named.items()
    }


def finite(value: object) -> float | None:
    """A number that JSON can hold; None for NaN, infinity, and what is no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
