"""Events to viewers: one document a second, encoded once, and the newest wins.

A viewer has no queue. It remembers the number of the last event that it got, and takes the newest one when it can:
one that stops reading loses events and holds up nobody.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Final

from fluvial.console.limits import VIEWERS_MAX
from fluvial.console.problems import too_many_viewers

EVENTS: Final = ("now", "audit")


def encoded(document: Any) -> bytes:
    """Compact JSON; what JSON cannot hold does not get this far."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


@dataclass
class Channel:
    """The newest event of each name for one task."""

    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))
    frames: dict[str, bytes] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    viewers: int = 0
    last: bytes = b""

    def publish(self, name: str, data: bytes) -> None:
        """The newest event ``name``; in the loop's thread."""
        self.numbers[name] += 1
        self.frames[name] = b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Viewer:
    """One open stream: what of its channel it has had."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._had = dict.fromkeys(EVENTS, 0)

    async def next(self, timeout_s: float) -> bytes:
        """The newest events that it has not had, as one piece; b"" when there is none within ``timeout_s``."""
        changed = self._channel.changed
        frames = self._take()
        if not frames:
            try:
                await asyncio.wait_for(changed.wait(), timeout_s)
            except TimeoutError:
                return b""
            frames = self._take()
        return frames

    def _take(self) -> bytes:
        channel, frames = self._channel, b""
        for name in EVENTS:
            if channel.numbers[name] != self._had[name]:
                self._had[name] = channel.numbers[name]
                frames += channel.frames[name]
        return frames


class Hub:
    """The channels of all tasks, and how many viewers there are."""

    def __init__(self, viewers_max: int = VIEWERS_MAX) -> None:
        self._viewers_max = viewers_max
        self.channels: dict[str, Channel] = {}
        self.viewers = 0

    def channel(self, task: str) -> Channel:
        """The channel of a task."""
        return self.channels.setdefault(task, Channel())

    def enter(self, task: str) -> Viewer:
        """One more viewer; ConnectionProblem FLV-6508 past the bound."""
        if self.viewers >= self._viewers_max:
            raise too_many_viewers(self._viewers_max)
        self.viewers += 1
        channel = self.channel(task)
        channel.viewers += 1
        return Viewer(channel)

    def leave(self, task: str) -> None:
        """One viewer less; a channel that nobody watches is let go."""
        self.viewers -= 1
        channel = self.channels[task]
        channel.viewers -= 1
        if channel.viewers == 0:
            del self.channels[task]
