"""Events to viewers: one document a second, encoded once, and the newest wins.

A viewer has no queue. It remembers the number of the last event that it got, and takes the newest one when it can:
one that stops reading loses events and holds up nobody.

Nobody can take all the places. Where none is left, the newcomer gets that of the client who has most of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from fluvial.console.limits import VIEWERS_MAX
from fluvial.console.problems import document_of, too_many_viewers

EVENTS: Final = ("now", "audit")
RETRY_LET_GO_MS: Final = 30_000
"""A viewer whose place was given away comes back no sooner."""


def encoded(document: Any) -> bytes:
    """Compact JSON; what JSON cannot hold does not get this far."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


@dataclass
class Channel:
    """The newest event of each name for one task, and who waits for the next."""

    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))
    frames: dict[str, bytes] = field(default_factory=dict)
    viewers: set[Viewer] = field(default_factory=set)

    def publish(self, name: str, data: bytes) -> None:
        """The newest event ``name``; in the loop's thread."""
        self.numbers[name] += 1
        self.frames[name] = b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
        for viewer in self.viewers:
            viewer.wake()


class Viewer:
    """One open stream: what of its task's channel it has had, and for whom it is (``client``, an address)."""

    def __init__(self, task: str, channel: Channel, client: str) -> None:
        self.task = task
        self.client = client
        self.let_go = False
        self.channel = channel
        self._had = dict.fromkeys(EVENTS, 0)
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to look at."""
        self._woken.set()

    async def next(self, timeout_s: float) -> bytes:
        """The newest events that it has not had, as one piece; b"" when there is none within ``timeout_s``."""
        frames = self._take()
        if not frames and not self.let_go:
            try:
                await asyncio.wait_for(self._woken.wait(), timeout_s)
            except TimeoutError:
                return b""
            frames = self._take()
        return frames

    def _take(self) -> bytes:
        self._woken.clear()
        channel, frames = self.channel, b""
        for name in EVENTS:
            if channel.numbers[name] != self._had[name]:
                self._had[name] = channel.numbers[name]
                frames += channel.frames[name]
        return frames


class Hub:
    """The channels of all tasks, and who has the ``viewers_max`` places."""

    def __init__(self, viewers_max: int = VIEWERS_MAX) -> None:
        self._viewers_max = viewers_max
        self._viewers: dict[Viewer, None] = {}  # the oldest first
        self.channels: dict[str, Channel] = {}

    @property
    def viewers(self) -> int:
        """How many places are taken."""
        return len(self._viewers)

    def channel(self, task: str) -> Channel:
        """The channel of a task."""
        return self.channels.setdefault(task, Channel())

    def enter(self, task: str, client: str) -> Viewer:
        """One more viewer, always: where no place is left, that client's oldest is let go who has most of them."""
        if len(self._viewers) >= self._viewers_max:
            self._let_one_go()
        channel = self.channel(task)
        viewer = Viewer(task, channel, client)
        channel.viewers.add(viewer)
        self._viewers[viewer] = None
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """One viewer less, if it has not left before; a channel that nobody watches is let go."""
        if viewer not in self._viewers:
            return
        del self._viewers[viewer]
        channel = self.channels[viewer.task]
        channel.viewers.discard(viewer)
        if not channel.viewers:
            del self.channels[viewer.task]

    def farewell(self) -> bytes:
        """What a viewer is told whose place was given away."""
        document = encoded(document_of(too_many_viewers(self._viewers_max)))
        return f"retry: {RETRY_LET_GO_MS}\nevent: gone\n".encode() + b"data: " + document + b"\n\n"

    def _let_one_go(self) -> None:
        places = Counter(viewer.client for viewer in self._viewers)
        most = max(places.values())
        oldest = next(viewer for viewer in self._viewers if places[viewer.client] == most)
        self.leave(oldest)
        oldest.let_go = True
        oldest.wake()
