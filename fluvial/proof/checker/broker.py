"""A broker, asked for topics, bounds and raw batches over one connection a node, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

REQUEST_TIMEOUT_S: Final = 30.0
RETRY_S: Final = 0.2
FETCH_WAIT_MS: Final = 250
FETCH_BYTES_MAX: Final = 4 << 20
_EARLIEST, _LATEST = -2, -1
_UNCOMMITTED: Final = 0
_AWAY: Final = (errors.KafkaError, OSError, TimeoutError)

T = TypeVar("T")


class SilentBrokerError(Exception):
    """No answer within the time that there was."""


class Broker:
    """Asks for ``patience_s`` at most before ``SilentBrokerError``. A context's end closes it."""

    def __init__(self, kafka: Mapping[str, Any], patience_s: float) -> None:
        self._hosts = [(host, port) for host, port, _ in collect_hosts(str(kafka["bootstrap.servers"]))]
        self._options = dict(kafka.get("aiokafka", {}))
        self._patience_s = patience_s
        self._nodes: dict[int, tuple[str, int]] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._connections: dict[tuple[str, int], AIOKafkaConnection] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="checker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def topics(self) -> dict[str, list[int]]:
        """The partitions of all topics."""
        return self._run(self._again(self._topics))

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last one)."""

        async def ask() -> tuple[int, int]:
            place = (topic, partition)
            return await self._offset(place, _EARLIEST), await self._offset(place, _LATEST)

        return self._run(self._again(ask))

    def fetch(self, topic: str, partition: int, offset: int) -> bytes:
        """Batches from ``offset`` on, not empty."""
        return self._run(self._again(lambda: self._fetch((topic, partition), offset)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer."""
        began_s = time.monotonic()
        while True:
            try:
                return await asyncio.wait_for(ask(), REQUEST_TIMEOUT_S)
            except _AWAY as error:
                if time.monotonic() - began_s > self._patience_s:
                    raise SilentBrokerError(str(error) or type(error).__name__) from error
                await self._disconnect()
            await asyncio.sleep(RETRY_S)

    async def _topics(self, *names: str) -> dict[str, list[int]]:
        problem: Exception = errors.KafkaConnectionError("no broker answers")
        for host in [*self._nodes.values(), *self._hosts]:
            try:
                connection = await self._connected(host)
            except _AWAY as error:
                problem = error
                continue
            request = MetadataRequest(list(names) or None, allow_auto_topic_creation=False)
            response = await connection.send(request)
            self._nodes = {node: (name, port) for node, name, port, *_ in response.brokers}
            found: dict[str, list[int]] = {}
            for _, topic, *_, partitions in response.topics:
                found[topic] = sorted(number for _, number, *_ in partitions)
                self._leaders.update({(topic, number): leader for _, number, leader, *_ in partitions})
            return found
        raise problem

    async def _offset(self, place: tuple[str, int], which: int) -> int:
        connection = await self._leader(place)
        request = OffsetRequest(-1, _UNCOMMITTED, [(place[0], [(place[1], which)])])
        ((_, ((_, code, _, offset),)),) = (await connection.send(request)).topics
        _require(code)
        return int(offset)

    async def _fetch(self, place: tuple[str, int], offset: int) -> bytes:
        connection = await self._leader(place)
        wanted = [(place[0], [(place[1], offset, FETCH_BYTES_MAX)])]
        request = FetchRequest(FETCH_WAIT_MS, 1, FETCH_BYTES_MAX, _UNCOMMITTED, wanted)
        ((_, ((_, code, *_, batches),)),) = (await connection.send(request)).topics
        _require(code)
        if not batches:
            raise errors.LeaderNotAvailableError
        return bytes(batches)

    async def _leader(self, place: tuple[str, int]) -> AIOKafkaConnection:
        if self._leaders.get(place) not in self._nodes:
            await self._topics(place[0])
        node = self._nodes.get(self._leaders.get(place, -1))
        if node is None:
            raise errors.LeaderNotAvailableError
        return await self._connected(node)

    async def _connected(self, node: tuple[str, int]) -> AIOKafkaConnection:
        connection = self._connections.get(node)
        if connection is None or not connection.connected():
            connection = await create_conn(
                *node, request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000), **self._options
            )
            self._connections[node] = connection
        return connection

    async def _end(self) -> None:
        await self._disconnect()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _disconnect(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._leaders.clear()


def _require(code: int) -> None:
    error = errors.for_code(code)
    if error is not errors.NoError:
        raise error
