"""Partitions as their broker has them: bounds, and raw record batches, over aiokafka's connections. None is read here.

What passes by itself is waited for: a leader that moves, a broker that is away. Whoever fetches gets nothing meanwhile
and asks again; whoever asks for anything else waits ``REQUEST_TIMEOUT_S`` at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import conn as aiokafka_conn
from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from aggregation.errors import FluvialError, UsageProblem
from backends.kafka.configuration import REQUEST_TIMEOUT_S, addresses, client_options
from backends.kafka.diagnosis import AGAIN_S, SOON_S, refusal_async
from backends.kafka.frames import receive_in_place
from backends.kafka.problems import client_problem
from backends.settings import Settings

Place = tuple[str, int]
"""A topic and a partition."""
Node = tuple[str, int]
"""A broker's host and port."""
T = TypeVar("T")

SOCKET_BYTES_AT_ONCE: Final = 4 << 20
"""aiokafka takes 64 KiB at a time otherwise, and spends its time on going to sleep and waking up."""
BACKOFF_S: Final = 0.05
UNKNOWN_S_MAX: Final = 5.0
"""A broker that does not know a topic may be about to learn of it: it is asked again for so long."""
_UNCOMMITTED: Final = 0
"""What counts is what stands in the log: a stranger's transaction, aborted or left open, hides nothing."""
_EARLIEST, _LATEST = -2, -1
_ELECTING: Final = frozenset({74, 75, 78})
"""Errors of a partition whose leader was just elected, which aiokafka does not know."""
_OUTAGES: Final = (errors.KafkaError, OSError, TimeoutError)

aiokafka_conn.READER_LIMIT = SOCKET_BYTES_AT_ONCE
receive_in_place()


class Fetched(NamedTuple):
    """Raw batches, of which the first covers the offset that was asked for, and the partition's high watermark."""

    data: bytes
    high: int


class OutOfRangeError(Exception):
    """The log does not have this offset: it was deleted, or was never there."""

    def __init__(self, place: Place, offset: int) -> None:
        super().__init__(f"{place[0]}[{place[1]}] has no offset {offset}")
        self.place, self.offset = place, offset


class PartitionClient:
    """Asks the brokers of ``settings``. All of its methods belong to one event loop."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._bootstrap = settings.bootstrap_servers
        self._let_in_asked_s = -AGAIN_S
        self._addresses = addresses(settings)
        self._options = client_options(settings, client_id)
        self._connections: dict[tuple[Node, bool], AIOKafkaConnection] = {}
        self._nodes: dict[int, Node] = {}
        self._leaders: dict[Place, int] = {}
        self._unknown_since_s: float | None = None
        # One a broker: an address that swallows packets keeps those waiting who want that one.
        self._connecting: defaultdict[tuple[Node, bool], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failing: set[Node] = set()
        self._under_way: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Give up what is under way, and close all connections."""
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    # -- what one asks

    async def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; UsageProblem (FLV-3103) when there is no such topic."""

        async def ask() -> list[int]:
            error, partitions = await self._look_up(topic)
            if error not in {errors.NoError, errors.UnknownTopicOrPartitionError}:
                raise error
            return sorted(number for _, number, *_ in partitions)

        found = await self._answered(ask, f"look up {topic}")
        if not found:
            raise UsageProblem(
                "FLV-3103", f"there is no topic {topic}", hint="list the tasks with `fluvial task list`"
            )
        return found

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last offset) of a partition: where its log begins, and its high watermark."""

        async def ask() -> tuple[int, int]:
            place = (topic, partition)
            low, high = await asyncio.gather(self._offset(place, _EARLIEST), self._offset(place, _LATEST))
            return low, high

        return await self._answered(ask, f"ask for the offsets of {topic}[{partition}]")

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset at or after a time; negative when there is none."""
        return await self._answered(
            lambda: self._offset((topic, partition), timestamp_ms),
            f"ask for offsets by time of {topic}[{partition}]",
        )

    async def fetch(
        self, starts: Mapping[Place, int], *, bytes_max: int, wait_ms: int, apart: bool
    ) -> dict[Place, Fetched]:
        """What the partitions hold at these offsets; nothing of those that have nothing within ``wait_ms``.

        About ``bytes_max`` a partition: a batch that is larger comes whole. ``apart``: over connections of its own, for
        other questions would wait behind it. Raises ``OutOfRangeError``, and FLV-3100 for what does not pass by itself.
        """
        self._note_task()
        by_leader: defaultdict[int, dict[Place, int]] = defaultdict(dict)
        try:
            for place, start in starts.items():
                by_leader[await self._leader(place)][place] = start
            if not by_leader.keys() <= self._nodes.keys():
                raise errors.LeaderNotAvailableError  # what was learnt of one partition moved another's
            answers = await asyncio.gather(
                *(
                    self._fetch_from(node, some, bytes_max, wait_ms, apart=apart)
                    for node, some in by_leader.items()
                )
            )
        except _OUTAGES as error:
            topics = ", ".join(sorted({topic for topic, _ in starts}))
            self._require_passing(error, f"read {topics}")
            await self._require_let_in(error)
            await asyncio.sleep(BACKOFF_S)
            return {}
        self._unknown_since_s = None
        return {place: fetched for answer in answers for place, fetched in answer.items()}

    # -- one request

    async def _fetch_from(
        self, node: int, starts: Mapping[Place, int], bytes_max: int, wait_ms: int, *, apart: bool
    ) -> dict[Place, Fetched]:
        topics: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for (topic, partition), start in starts.items():
            topics[topic].append((partition, start, bytes_max))
        request = FetchRequest(wait_ms, 1, 2 * bytes_max, _UNCOMMITTED, list(topics.items()))
        response = await _sent(await self._connection(self._nodes[node], apart=apart), request)
        found = {}
        for topic, partitions in response.topics:
            for partition, code, high, *rest in partitions:
                place = (topic, partition)
                error = _error_of(code)
                if error is errors.OffsetOutOfRangeError:
                    raise OutOfRangeError(place, starts[place])
                if error is not errors.NoError:
                    raise error
                if rest[-1]:
                    found[place] = Fetched(rest[-1], high)
        return found

    async def _offset(self, place: Place, timestamp_ms: int) -> int:
        topic, partition = place
        node = await self._leader(place)
        request = OffsetRequest(-1, _UNCOMMITTED, [(topic, [(partition, timestamp_ms)])])
        response = await _sent(await self._connection(self._nodes[node], apart=False), request)
        _, ((_, code, _, offset),) = response.topics[0]
        if (error := _error_of(code)) is not errors.NoError:
            raise error
        self._unknown_since_s = None
        return int(offset)

    async def _look_up(self, topic: str) -> tuple[type[errors.KafkaError], list[Any]]:
        """What a broker says of a topic: its error, and (error code, partition, leader, ...) of each partition."""
        request = MetadataRequest([topic], allow_auto_topic_creation=False)
        response = await _sent(await self._any_connection(), request)
        self._nodes = {node: (host, port) for node, host, port, *_ in response.brokers}
        code, _, *_, partitions = response.topics[0]
        for _, number, leader, *_ in partitions:
            self._leaders[topic, number] = leader
        return _error_of(code), partitions

    async def _leader(self, place: Place) -> int:
        if self._leaders.get(place, -1) not in self._nodes:
            error, _ = await self._look_up(place[0])
            if error is not errors.NoError:
                raise error
            if place not in self._leaders:
                raise errors.UnknownTopicOrPartitionError
            if self._leaders[place] not in self._nodes:
                raise errors.LeaderNotAvailableError
        return self._leaders[place]

    # -- connections

    async def _connection(self, node: Node, *, apart: bool) -> AIOKafkaConnection:
        async with self._connecting[node, apart]:
            connection = self._connections.get((node, apart))
            if connection is None or not connection.connected():
                self._failing.add(node)
                connection = await create_conn(*node, **self._options)
                self._connections[node, apart] = connection
            self._failing.discard(node)
            return connection

    async def _any_connection(self) -> AIOKafkaConnection:
        problem: Exception = errors.KafkaConnectionError("no broker answers")
        known = dict.fromkeys([*self._nodes.values(), *self._addresses])
        for node in sorted(known, key=lambda one: one in self._failing):  # a stable order
            try:
                return await self._connection(node, apart=False)
            except _OUTAGES as error:
                problem = error
        raise problem

    # -- what passes

    async def _answered(self, ask: Callable[[], Awaitable[T]], action: str) -> T:
        """Ask until there is an answer; FLV-3100 after ``REQUEST_TIMEOUT_S``, or for what does not pass."""
        self._note_task()
        deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    return await ask()
            except _OUTAGES as error:
                self._require_passing(error, action)
                await self._require_let_in(error)
                if time.monotonic() > deadline_s:
                    raise self._problem(error, action) from error
            await asyncio.sleep(BACKOFF_S)

    def _note_task(self) -> None:
        """What asks is given up where the client is closed meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _require_passing(self, error: Exception, action: str) -> None:
        """Raise FLV-3100 unless asking again may help; who leads what is asked anew then."""
        self._leaders.clear()
        if not isinstance(error, errors.KafkaError) or isinstance(error, errors.KafkaConnectionError):
            return
        if isinstance(error, errors.UnknownTopicOrPartitionError):
            now_s = time.monotonic()
            self._unknown_since_s = self._unknown_since_s or now_s
            if now_s - self._unknown_since_s < UNKNOWN_S_MAX:
                return
        elif error.retriable or error.invalid_metadata:
            return
        raise self._problem(error, action) from error

    async def _require_let_in(self, error: Exception) -> None:
        """Where a connection breaks, see every ``AGAIN_S`` at most whether it always will: AccessProblem."""
        now_s = time.monotonic()
        answered = isinstance(error, errors.KafkaError) and not isinstance(error, errors.KafkaConnectionError)
        asked = now_s - self._let_in_asked_s < AGAIN_S
        if answered or asked or isinstance(error, ConnectionRefusedError):
            return
        self._let_in_asked_s = now_s
        refused = await refusal_async(self._settings, SOON_S)
        if refused is not None:
            raise refused from error

    def _problem(self, error: Exception, action: str) -> FluvialError:
        return client_problem(error, action, self._bootstrap)


def _error_of(code: int) -> type[errors.KafkaError]:
    known: type[errors.KafkaError] = errors.for_code(code)
    return errors.LeaderNotAvailableError if code in _ELECTING else known


async def _sent(connection: AIOKafkaConnection, request: Any) -> Any:
    """The answer. A connection that gives none is closed, for what comes late would be taken for another's."""
    try:
        return await connection.send(request)
    except TimeoutError:
        connection.close()
        raise
