"""A Faust transport that resumes where *we* say: at the offset that our own output names, not at a committed one.

Faust asks ``seek_to_committed`` where every assigned partition goes on, after each rebalance and whenever the flow was
paused, so the answer has to be idempotent. Committed offsets are still written, as advice for lag tools.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import faust
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from faust.sensors import Monitor
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from aggregation.errors import FluvialError, IntegrityProblem
from backends.kafka.admin import BrokerProbe, require_broker
from backends.kafka.configuration import broker_credentials, faust_broker
from backends.kafka.diagnosis import RefusalWatch
from backends.kafka.faust import static_membership
from backends.kafka.faust.our_batches import read_by_our_batches
from backends.kafka.problems import client_problem
from backends.kafka.stretches import size_of
from backends.log import LogRecord, UnreadableRecord
from backends.outages import retry_through_outage
from backends.settings import Settings

SESSION_TIMEOUT_S: Final = 6.0
HEARTBEAT_S: Final = 1.5
FETCH_BYTES: Final = 4 << 20
"""Bytes a partition and fetch: it bounds memory. A larger record still comes, alone (KIP-74)."""
PROBE_EVERY_S: Final = 3.0
STREAM_BUFFER_BYTES_MAX: Final = 32 << 20
STREAM_BUFFER_PORTIONS_MAX: Final = 16
PORTION_BYTES: Final = 4 << 20
PORTION_RECORDS_MAX: Final = 64
"""A portion is what an agent takes at once: it ends with the record that reaches either. What is paid once a portion
(Faust, one request of verdicts) is paid for this many; the loop does nothing else meanwhile, some 50 ms."""
LOG_APPEND_TIME: Final = 1
POLL_RECORDS_MAX: Final = 50_000
"""Records taken out of a fetch at once: 8 MB may hold a million tiny ones. Faust may fetch the rest anew: not fewer."""

log = logging.getLogger("fluvial")

Resume = Callable[[Iterable[TP]], Awaitable[Mapping[TP, int]]]


class _Portion(ConsumerMessage):
    """Consecutive records of one partition as one Faust message; its offset is the last one's, its value is empty."""

    __slots__ = ("records",)

    def __init__(self, partition: TP, records: Sequence[LogRecord], generation: int) -> None:
        last = records[-1]
        super().__init__(
            partition.topic,
            partition.partition,
            last.offset,
            last.timestamp_ms / 1000,
            LOG_APPEND_TIME,
            [],
            None,
            b"",
            None,
            tp=partition,
            generation_id=generation,
        )
        self.records = records


def _portions(fetched: Mapping[TP, Sequence[Any]]) -> Iterator[tuple[TP, list[LogRecord]]]:
    """What was fetched in portions, partition by partition in turn, so that none waits for all of another's."""
    waiting = [(partition, _portions_of(partition, records)) for partition, records in fetched.items()]
    while waiting:
        for one in tuple(waiting):
            partition, portions = one
            portion = next(portions, None)
            if portion is None:
                waiting.remove(one)
            else:
                yield partition, portion


def _portions_of(partition: TP, records: Sequence[Any]) -> Iterator[list[LogRecord]]:
    topic, number = partition.topic, partition.partition
    portion: list[LogRecord] = []
    size = 0
    for one in records:
        value = one.value
        if isinstance(value, IntegrityProblem):
            portion.append(
                UnreadableRecord(topic, number, one.offset, one.timestamp, None, None, problem=value)
            )
            continue
        portion.append(
            LogRecord(topic, number, one.offset, one.timestamp, one.key, value, tuple(one.headers or ()))
        )
        size += size_of(portion[-1])
        if size >= PORTION_BYTES or len(portion) >= PORTION_RECORDS_MAX:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class NamedThread(driver.AIOKafkaConsumerThread):
    """The thread that speaks to the group; it ends the app when another process has taken its name."""

    async def on_start(self) -> None:
        """Start, then listen for being fenced: no request was sent to the group yet."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001
        coordinator.on_fenced = self._end_app
        coordinator.on_denied = self._end_denied

    def _end_app(self) -> None:
        self._end_with(
            static_membership.name_taken(self.app.conf.id, self.app.conf.consumer_group_instance_id)
        )

    def _end_denied(self, error: KafkaError) -> None:
        transport: ResumingTransport = self.transport  # type: ignore[assignment]
        self._end_with(client_problem(error, f"read as the group {self.app.conf.id}", transport.where))

    def _end_with(self, problem: FluvialError) -> None:
        # The group is spoken to in a thread of its own, with a loop of its own.
        asyncio.run_coroutine_threadsafe(crash_with(self.app, problem), self.app.loop)

    async def seek_assigned(self, offsets: Mapping[TP, int]) -> None:
        """Seek those partitions that are still ours.

        In this thread, unlike Faust's own ``seek``: what was fetched is dropped with it, and from another thread that
        would pull it away under a fetch that is handing it out (``KeyError``, and the end of the worker).
        """
        await self.call_thread(self._seek_assigned, offsets)

    async def _seek_assigned(self, offsets: Mapping[TP, int]) -> None:
        assigned = self.assignment()
        for partition, offset in offsets.items():
            if partition in assigned:
                self.seek(partition, offset)


class ResumingConsumer(driver.Consumer):
    """The aiokafka consumer, with our own idea of where to go on."""

    _thread: NamedThread

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """What was fetched, a partition's consecutive records as one message: Faust's cost is one a message.

        As Faust's own, which has a message a record: it ends where the flow is paused or partitions move, and what it
        leaves is sought anew.
        """
        transport: ResumingTransport = self.transport  # type: ignore[assignment]
        try:
            fetched, active = await self._wait_next_records(timeout)
        except TopicAuthorizationFailedError as error:
            await crash_with(self.app, client_problem(error, f"read {error.args[0]}", transport.where))
            return
        if fetched is None:
            return
        if not self.flow_active:
            await self._seek_anew()
            return
        generation = self.app.consumer_generation_id
        for partition, portion in _portions(fetched):
            if self.app.consumer_generation_id != generation or not self.flow_active:
                return
            unreadable = portion[-1]
            if isinstance(unreadable, UnreadableRecord):
                if transport.stops_partitions:
                    yield partition, _Portion(partition, portion, generation)
                    continue
                await crash_with(self.app, unreadable.problem)
                return
            if active is None or partition in active or partition in self._buffered_partitions:
                yield partition, _Portion(partition, portion, generation)

    async def _seek_anew(self) -> None:
        try:
            await self.perform_seek()
        except Exception as error:  # noqa: BLE001 - Faust goes on, and seeks again when the flow resumes
            log.warning("could not seek while the flow was paused: %s", error)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: between the offsets of two portions lie the records of the second."""

    def _new_offset(self, tp: TP) -> int | None:
        """Behind the last portion that was folded: portions of a partition are, one after another."""
        acked = self._acked[tp]
        if not acked:
            return None
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    def _new_consumer_thread(self) -> NamedThread:
        return NamedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to the offset that the application names."""
        transport: ResumingTransport = self.transport  # type: ignore[assignment]
        offsets = await transport.resume(self.assignment())
        await self._thread.seek_assigned(offsets)
        return offsets


class ResumingTransport(driver.Transport):
    """The aiokafka transport with ``ResumingConsumer``; ``resume`` maps assigned partitions to offsets."""

    Consumer = ResumingConsumer
    stops_partitions: bool = False
    """Whether the app takes an ``UnreadableRecord`` for the end of one partition; else it ends the app."""
    resume: Resume
    where: str


class QuietMonitor(Monitor):
    """Faust's monitor without its own account of every message: 7 % of a worker's time, and nobody reads it."""

    def on_message_in(self, *_: Any) -> None:
        """Nothing."""

    def on_message_out(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_in(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_out(self, *_: Any) -> None:
        """Nothing."""


class NoTables(TableManager):
    """Faust's table manager, which does not wait a second for tables to be made: an app of ours has none."""

    async def on_start(self) -> None:
        """As Faust's own, at once."""
        await self._update_channels()
        await self.recovery.start()


def create_app(
    app_id: str,
    settings: Settings,
    resume: Resume,
    *,
    data_folder: str,
    record_bytes: int,
    member_name: str | None = None,
    stops_partitions: bool = False,
    **options: Any,
) -> faust.App:
    """A Faust app as all of ours are: resuming, raw bytes, no web server, no declared topics, no leader.

    ``app_id`` is also the consumer group. ``record_bytes`` is about how large a record is: it bounds what is buffered.
    With a ``member_name`` it is a static member of its group: see ``backends.kafka.faust.static_membership``.
    """
    read_by_our_batches()
    static_membership.install()
    where = settings.bootstrap_servers
    retry_through_outage(
        f"reach Kafka at {where}", lambda: require_broker(settings)
    )  # aiokafka gives up at its start
    portion_bytes = max(PORTION_BYTES, record_bytes)
    buffered = max(4, min(STREAM_BUFFER_PORTIONS_MAX, STREAM_BUFFER_BYTES_MAX // portion_bytes))
    app = faust.App(
        app_id,
        broker=faust_broker(settings),
        broker_credentials=broker_credentials(settings),
        datadir=data_folder.replace("{", "{{").replace("}", "}}"),  # Faust formats it
        Monitor=QuietMonitor,
        TableManager=NoTables,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=buffered,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=member_name,
        broker_client_id=member_name or app_id,
        consumer_max_fetch_size=FETCH_BYTES,
        broker_max_poll_records=POLL_RECORDS_MAX,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=SESSION_TIMEOUT_S * 2,
        broker_commit_interval=2.0,
        key_serializer="raw",
        value_serializer="raw",
        **options,
    )
    transport = ResumingTransport(app.conf.broker_consumer, app)
    transport.resume = resume
    transport.stops_partitions = stops_partitions
    transport.where = where
    app.transport = transport

    @app.task  # type: ignore[untyped-decorator]
    async def watch_broker() -> None:
        await _say_while_away(app, settings)

    return app


async def crash_with(app: Any, problem: FluvialError) -> None:
    """End the app for a reason that does not pass."""
    log.error("this process ends.\n%s", problem)
    await app.crash(problem)


async def _say_while_away(app: faust.App, settings: Settings) -> None:
    """Say every few seconds that the broker is away: aiokafka reconnects by itself, but in silence."""
    probe, watch = BrokerProbe(settings), RefusalWatch(settings)
    away_since_s: float | None = None
    while not app.should_stop:
        asked_s = time.monotonic()
        if not await asyncio.to_thread(probe.answers):
            away_since_s = away_since_s or asked_s
            waited_s = time.monotonic() - away_since_s
            log.warning("waiting for Kafka at %s to answer, %.0f s", settings.bootstrap_servers, waited_s)
            if (refused := await asyncio.to_thread(watch.look)) is not None:
                await crash_with(app, refused)
                return
        elif away_since_s is not None:
            log.info("Kafka answers again after %.0f s", time.monotonic() - away_since_s)
            away_since_s = None
        await app.sleep(PROBE_EVERY_S)


def raw_topic(app: faust.App, *names: str) -> Any:
    """Topics of raw bytes: decoding is ours, so that bad bytes become verdicts instead of errors."""
    return app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def records_in(message: Any) -> Sequence[LogRecord]:
    """The consecutive records of one partition that a Faust message of ours carries: at least one."""
    assert isinstance(message, _Portion), message
    return message.records
