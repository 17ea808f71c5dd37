"""The brokers' connections: one that swallows packets keeps nobody waiting who wants another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from backends.kafka.fetching import PartitionClient
from backends.kafka.writing import LogWriter
from tests.small_federation import on_mock_cluster
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with on_mock_cluster(tmp_path) as settings:
        yield settings


@pytest.fixture
def swallowing() -> Iterator[tuple[str, int]]:
    """An address where nothing is answered: who wants to connect waits, for the queue of those who came is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        held = []
        for _ in range(3):
            one = socket.socket()
            one.settimeout(0)
            one.connect_ex(listening.getsockname())
            held.append(one)
        yield listening.getsockname()
        for one in held:
            one.close()


def test_an_address_that_swallows_packets_delays_no_other(
    settings: Settings, swallowing: tuple[str, int]
) -> None:
    async def run() -> None:
        client = PartitionClient(settings, "test")
        waiting = asyncio.create_task(client._connection(swallowing, apart=True))
        await asyncio.sleep(0)
        connection = await asyncio.wait_for(client._connection(client._addresses[0], apart=True), WAIT_S)
        assert connection.connected() and not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.close()

    asyncio.run(run())


def test_who_asks_any_broker_asks_those_first_that_let_us_in(
    settings: Settings, swallowing: tuple[str, int]
) -> None:
    host, port = swallowing
    behind = structs.replace(settings, bootstrap_servers=f"{host}:{port},{settings.bootstrap_servers}")

    async def run() -> None:
        client = PartitionClient(behind, "test")
        client._failing.add((host, port))
        assert await asyncio.wait_for(client.bounds("topic", 0), WAIT_S) == (0, 0)
        await client.close()

    LogWriter(settings, "test")._producer.list_topics("topic", timeout=WAIT_S)
    asyncio.run(run())
