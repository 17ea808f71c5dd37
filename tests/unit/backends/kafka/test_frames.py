"""What is received in place is what was sent, however it is cut on the way and however it ends."""

from __future__ import annotations

import asyncio
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest

from backends.kafka.frames import IN_PLACE_BYTES_MIN, FrameProtocol, FrameReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SIZES = (
    *(0, 1, IN_PLACE_BYTES_MIN - 1, IN_PLACE_BYTES_MIN, IN_PLACE_BYTES_MIN + 1),
    *(3_000_000, 5, 1_000_000, 70_000, 12, 2_000_000),
)


def frames() -> list[bytes]:
    return [random.Random(size).randbytes(size) for size in SIZES]


async def read(reader: FrameReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


async def connected(
    serve: Callable[[asyncio.StreamWriter], Awaitable[None]],
    use: Callable[[FrameReader], Awaitable[None]],
) -> None:
    """``use`` reads over a socket, as aiokafka makes its connections, what ``serve`` writes."""

    async def serve_and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(writer)
        writer.close()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    reader: Any = asyncio.StreamReader(limit=1 << 16, loop=loop)
    closed: asyncio.Future[None] = loop.create_future()
    protocol = FrameProtocol(closed, reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname()[:2])
    try:
        await asyncio.wait_for(use(reader), 60)
    finally:
        transport.close()
        await asyncio.wait_for(closed, 60)
        server.close()


@pytest.mark.parametrize("seed", range(4))
def test_frames_arrive_as_they_were_sent_in_whatever_pieces(seed: int) -> None:
    sent, rng = frames(), random.Random(seed)

    async def serve(writer: asyncio.StreamWriter) -> None:
        stream = b"".join(struct.pack(">i", len(frame)) + frame for frame in sent)
        at = 0
        while at < len(stream):
            size = rng.choice((1, 3, 1000, 65_536, 300_000, len(stream)))
            writer.write(stream[at : at + size])
            await writer.drain()
            if rng.random() < 0.3:
                await asyncio.sleep(0)
            at += size

    async def use(reader: FrameReader) -> None:
        for frame in sent:
            got = await read(reader)
            assert type(got) is bytes
            assert got == frame
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(4)
        assert reader.at_eof()

    asyncio.run(connected(serve, use))


@pytest.mark.parametrize("missing", [1, IN_PLACE_BYTES_MIN])
def test_a_connection_that_ends_within_a_frame_is_said_to(missing: int) -> None:
    size = 1_000_000

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(struct.pack(">i", size) + bytes(size - missing))
        await writer.drain()

    async def use(reader: FrameReader) -> None:
        with pytest.raises(asyncio.IncompleteReadError):
            await read(reader)

    asyncio.run(connected(serve, use))


def test_a_reading_that_is_given_up_leaves_a_stream_that_takes_what_comes() -> None:
    """A connection is closed then; what is still on its way to it goes nowhere, and breaks nothing."""
    size = 1_000_000

    async def run() -> None:
        going_on = asyncio.Event()

        async def serve(writer: asyncio.StreamWriter) -> None:
            writer.write(struct.pack(">i", size) + bytes(size // 2))
            await writer.drain()
            await going_on.wait()
            writer.write(bytes(size // 2))

        async def use(reader: FrameReader) -> None:
            reading = asyncio.create_task(read(reader))
            while reader.room() is None or len(reader.room() or b"") > size // 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert reader.room() is None
            going_on.set()
            assert await reader.readexactly(100) == bytes(100)

        await connected(serve, use)

    asyncio.run(run())
