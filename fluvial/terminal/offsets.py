"""The offset language of every command that takes one.

::

    120394                 this offset
    @start   @end          the first offset of the log; one past its last
    @-10m                  the first record of the last ten minutes (s, m, h, d)
    @2026-11-22T10:00      the first record at or after this time (seconds and zone as you like; UTC without one)
    a:b   a:   :b          a range: from a up to, not including, b

Parsing is pure; ``resolve`` asks the log. The longest time wins: ``@2026-11-22T10:00:30`` is half a minute past ten,
and ``@2026-11-22T10:00Z:30`` is the range up to offset 30.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final, Protocol

from aggregation.errors import UsageProblem

LANGUAGE: Final = "120394, @start, @end, @-10m, @2026-11-22T10:00, or a range of two: @-1h:@end"

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_POINT: Final = re.compile(
    r"@(?P<edge>start|end)"
    r"|@-(?P<ago>\d{1,12})(?P<unit>[smhd])"
    r"|@(?P<time>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)?)?)"
    r"|(?P<offset>\d{1,18})",
    re.ASCII,
)


class Log(Protocol):
    """What resolving needs of a log; ``backends.kafka.client.LogReader`` has it."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last)."""
        ...

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset at or after a time; the end when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The first offset of the log."""


@dataclass(frozen=True, slots=True)
class End:
    """One past the last offset."""


@dataclass(frozen=True, slots=True)
class Ago:
    """So many milliseconds before now."""

    milliseconds: int


@dataclass(frozen=True, slots=True)
class At:
    """A time, in milliseconds since 1970 UTC."""

    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Offset:
    """An offset by number."""

    number: int


Point = Start | End | Ago | At | Offset


@dataclass(frozen=True, slots=True)
class Range:
    """From ``start`` up to, not including, ``end``."""

    start: Point
    end: Point


def parse_point(text: str) -> Point:
    """One point of the language; UsageProblem FLV-6201."""
    match = _POINT.fullmatch(text)
    if match is None:
        raise _not_understood(text)
    return _point(match, text)


def parse_range(text: str) -> Range:
    """A range, or one point, which means from there to the end; UsageProblem FLV-6201."""
    start: Point = Start()
    rest = text
    match = _POINT.match(text)
    if match is not None:
        start, rest = _point(match, text), text[match.end() :]
        if not rest:
            return Range(start, End())
    if not rest.startswith(":") or text == ":":
        raise _not_understood(text)
    return Range(start, parse_point(rest[1:]) if rest[1:] else End())


def resolve(point: Point, log: Log, topic: str, partition: int, *, now_ms: int) -> int:
    """The offset that a point means in one partition, within its log; UsageProblem FLV-6202 for a number outside."""
    low, high = log.bounds(topic, partition)
    match point:
        case Start():
            return low
        case End():
            return high
        case Ago(milliseconds):
            return log.offset_at(topic, partition, max(0, now_ms - milliseconds))
        case At(timestamp_ms):
            return log.offset_at(topic, partition, timestamp_ms)
        case Offset(number):
            if low <= number <= high:
                return number
            raise UsageProblem(
                "FLV-6202",
                f"offset {number} is outside of the log, which holds {low} to {high - 1}"
                if high > low
                else "the log is empty",
                where=f"{topic}[{partition}]",
                hint="`@start` and `@end` name its ends",
            )


def resolve_record(point: Point, log: Log, topic: str, partition: int, *, now_ms: int) -> int:
    """The offset of the record at a point, where ``@end`` is the last one; UsageProblem FLV-6202 when there is none."""
    low, high = log.bounds(topic, partition)
    offset = high - 1 if isinstance(point, End) else resolve(point, log, topic, partition, now_ms=now_ms)
    if low <= offset < high:
        return offset
    holds = f"which holds {low} to {high - 1}" if high > low else "which is empty"
    raise UsageProblem(
        "FLV-6202",
        f"there is no record at {offset} in the log, {holds}",
        where=f"{topic}[{partition}]",
        hint="`@start` and `@end` name its ends",
    )


def resolve_range(span: Range, log: Log, topic: str, partition: int, *, now_ms: int) -> tuple[int, int]:
    """(first offset, one past the last) of a range; UsageProblem FLV-6202 (outside), FLV-6203 (the wrong way round)."""
    start = resolve(span.start, log, topic, partition, now_ms=now_ms)
    end = resolve(span.end, log, topic, partition, now_ms=now_ms)
    if start > end:
        raise UsageProblem(
            "FLV-6203",
            f"the range begins at offset {start} and ends before it, at {end}",
            where=f"{topic}[{partition}]",
            hint="write the earlier one first: a:b",
        )
    return start, end


def _point(match: re.Match[str], text: str) -> Point:
    edge, ago, time, offset = match["edge"], match["ago"], match["time"], match["offset"]
    if edge:
        return Start() if edge == "start" else End()
    if ago:
        return Ago(int(ago) * _UNIT_MS[match["unit"]])
    if offset:
        return Offset(int(offset))
    try:
        moment = dt.datetime.fromisoformat(time)
    except ValueError as error:
        raise _not_understood(text) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return At(round(moment.timestamp() * 1000))


def _not_understood(text: str) -> UsageProblem:
    return UsageProblem("FLV-6201", f"cannot understand the offset {text!r}", hint=f"expected {LANGUAGE}")
