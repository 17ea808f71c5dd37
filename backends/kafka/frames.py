"""Kafka's answers as they come from a socket, without a copy on the way.

asyncio's stream takes 256 KiB at a time, adds each to a buffer that grows, and copies a whole answer out of it: for a
fetch of megabytes that is most of what reading costs. Here a large answer is received where it will lie.
``receive_in_place`` has aiokafka's connections, and so Faust's, do so.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any, Final

from aiokafka import conn

IN_PLACE_BYTES_MIN: Final = 64 << 10
"""What is shorter goes through asyncio's own buffer."""
SCRATCH_BYTES: Final = 64 << 10
FIRST_ANSWER_BYTES_MAX: Final = 1 << 20
"""The first answer on a connection names versions. A port with TLS complains in what reads as a length of 352 MB."""
_FIRST_ANSWER: Final = 2
"""The second time that something is read: a length goes before it."""


def receive_in_place() -> None:
    """Let connections that aiokafka makes from now on receive so. Calling it again changes nothing."""
    conn.AIOKafkaProtocol = FrameProtocol


class FrameReader(asyncio.StreamReader):
    """A stream whose ``readexactly`` of much has the socket write into what it returns."""

    _reads = 0
    _room: memoryview | None = None
    """What is still to be received of it."""

    async def readexactly(self, n: int) -> bytes:
        """As asyncio's. IncompleteReadError, with no room made for it, for a first answer that is too long for one."""
        self._reads += 1
        if self._reads == _FIRST_ANSWER and n > FIRST_ANSWER_BYTES_MAX:
            raise asyncio.IncompleteReadError(b"", n)
        if n < IN_PLACE_BYTES_MIN:
            return await super().readexactly(n)
        whole = io.BytesIO()
        whole.seek(n - 1)
        whole.write(b"\0")
        with whole.getbuffer() as view:
            here = min(n, len(self._buffer))  # type: ignore[attr-defined]
            start = await super().readexactly(here)
            view[:here] = start
            self._room = view[here:]
            try:
                await self._filled(n)
            finally:
                self._room.release()
                self._room = None
        found = whole.getvalue()  # what it holds, and no copy of it
        return found if len(found) == n else found[:n]

    async def _filled(self, n: int) -> None:
        while self._room:
            if (problem := self.exception()) is not None:
                raise problem
            if self.at_eof():
                raise asyncio.IncompleteReadError(b"", n)
            await self._wait_for_data("readexactly")  # type: ignore[attr-defined]

    def room(self) -> memoryview | None:
        """Where what comes next is to be written to; None where nobody waits for much."""
        return self._room or None

    def received(self, count: int) -> None:
        """So much was written there."""
        assert self._room is not None
        room, self._room = self._room, self._room[count:]
        room.release()
        if not self._room:
            self._wakeup_waiter()  # type: ignore[attr-defined]


class FrameProtocol(asyncio.BufferedProtocol, conn.AIOKafkaProtocol):  # type: ignore[misc]
    """aiokafka's protocol, for a ``FrameReader``."""

    def __init__(self, closed: Any, reader: asyncio.StreamReader, *, loop: asyncio.AbstractEventLoop) -> None:
        reader.__class__ = FrameReader  # aiokafka makes it, and has just made it
        super().__init__(closed, reader, loop=loop)
        self._scratch = bytearray(SCRATCH_BYTES)
        self._in_place = False

    def get_buffer(self, sizehint: int) -> memoryview:
        """See ``asyncio.BufferedProtocol``."""
        del sizehint
        reader: FrameReader | None = self._stream_reader
        room = None if reader is None else reader.room()
        self._in_place = room is not None
        return memoryview(self._scratch) if room is None else room

    def buffer_updated(self, nbytes: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        reader: FrameReader | None = self._stream_reader
        if reader is None:  # nobody holds the connection any more
            return
        if self._in_place:
            reader.received(nbytes)
        else:
            reader.feed_data(self._scratch[:nbytes])
