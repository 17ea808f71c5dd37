"""The Kafka header that carries, on an aggregate, when its window's updates were published.

It holds the LogAppendTimes of accepted updates as packed little-endian int64 milliseconds, at most ``TIMES_MAX`` and
thinned evenly beyond. No signature covers it, so whoever reads it trusts nothing: a malformed one is no header, and
times that cannot be are clipped.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from backends.log import Headers

NAME: Final = "fluvial-published"
TIMES_MAX: Final = 1024
AGE_MS_MAX: Final = 7 * 86_400_000
"""No update waits for longer than a week to be in a window; what says so is clipped to it."""
_TIME_BYTES: Final = 8


class PublishTimes:
    """When the accepted updates of one open window were appended: bounded, evenly thinned beyond twice the header."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._stride = 1
        self._seen = 0

    def add(self, timestamp_ms: int) -> None:
        """One more accepted update."""
        if self._seen % self._stride == 0:
            self._times.append(timestamp_ms)
            if len(self._times) > 2 * TIMES_MAX:
                del self._times[1::2]
                self._stride *= 2
        self._seen += 1

    def clear(self) -> None:
        """The next window begins."""
        self._times.clear()
        self._stride, self._seen = 1, 0

    def headers(self) -> Headers:
        """The header, or none where nothing was accepted."""
        return pack(self._times)


def pack(times: Sequence[int]) -> Headers:
    """The header of these times."""
    if not times:
        return ()
    if len(times) > TIMES_MAX:
        times = [times[index * len(times) // TIMES_MAX] for index in range(TIMES_MAX)]
    return ((NAME, struct.pack(f"<{len(times)}q", *times)),)


def unpack(headers: Headers, appended_ms: int) -> tuple[int, ...]:
    """The times in a record's headers, none after ``appended_ms`` or a week before it; () without a good one."""
    for name, value in headers:
        if name == NAME:
            count, rest = divmod(len(value), _TIME_BYTES)
            if rest or not 0 < count <= TIMES_MAX:
                return ()
            oldest = appended_ms - AGE_MS_MAX
            return tuple(min(max(time, oldest), appended_ms) for time in struct.unpack(f"<{count}q", value))
    return ()
