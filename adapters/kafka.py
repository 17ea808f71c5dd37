"""Kafka by librdkafka: appending with confirmation, reading ranges and tails, declaring topics.

Faust reads the workers' inputs (``faust_transport``); everything else that touches Kafka goes through here. All
producers are idempotent with ``acks=all``. Methods block; asynchronous callers use ``asyncio.to_thread``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Self

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from adapters.log import Headers, LogRecord, Position
from adapters.observer import UNOBSERVED, Observer
from adapters.settings import Settings
from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem, TimeoutProblem, UsageProblem
from schemas.topics import Topic

__all__ = [
    "BrokerProbe",
    "LogReader",
    "LogRecord",
    "LogWriter",
    "Position",
    "declare_topics",
    "reachable",
    "require_broker",
]

REQUEST_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 120.0
POLL_S = 0.25
POLL_EVERY_S = 0.005
"""How often appending asks for answers: no answer comes sooner than a batch has lingered."""
ELECTION_POLL_S = 0.05
PRODUCER_QUEUE_BYTES_MAX = 64 << 20
FETCH_QUEUE_BYTES_MAX = 32 << 20


class LogWriter:
    """An idempotent producer. ``append`` returns at once with a future; the record is safe when it resolves."""

    def __init__(
        self, settings: Settings, client_id: str, *, give_up: bool = True, observer: Observer = UNOBSERVED
    ) -> None:
        """With ``give_up`` false a record waits for its broker as long as it takes: for workers and mergers."""
        self._observer = observer
        self._bootstrap = settings.bootstrap_servers
        self._polled_s = 0.0
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "client.id": client_id,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",  # librdkafka's own default would be CRC32
                "linger.ms": 5,
                "message.max.bytes": settings.message_bytes_max,
                "queue.buffering.max.kbytes": PRODUCER_QUEUE_BYTES_MAX // 1024,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000) if give_up else 0,
            }
            | _QUIET
        )

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        """Append one record; -1 lets the key choose (murmur2, the same as ``aggregation.partitioning``)."""
        future: Future[Position] = Future()
        began_s = time.perf_counter()

        def delivered(error: KafkaError | None, message: Message) -> None:
            problem = _problem(error, f"append to {topic}", self._bootstrap) if error is not None else None
            self._observer.produced(topic, time.perf_counter() - began_s, problem)
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(
                    Position(message.topic() or topic, message.partition() or 0, message.offset() or 0)
                )

        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, on_delivery=delivered, headers=list(headers) or None
                )
            except BufferError:
                self._producer.poll(POLL_S)  # the queue is full: let deliveries make room
                continue
            except KafkaException as error:
                raise _problem(error.args[0], f"append to {topic}", self._bootstrap) from error
            if began_s - self._polled_s >= POLL_EVERY_S:
                self._polled_s = began_s
                self._producer.poll(0)
            return future

    def append_now(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Position:
        """Append one record and wait until the broker has it."""
        future = self.append(topic, value, key=key, partition=partition, headers=headers)
        self.flush()
        return future.result(timeout=REQUEST_TIMEOUT_S)

    def poll(self) -> None:
        """Run the delivery callbacks that are due."""
        self._producer.poll(0)

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Wait until every record was delivered or has failed; TimeoutProblem (FLV-3102) after ``timeout_s``."""
        left = self._producer.flush(timeout_s)
        if left:
            raise TimeoutProblem(
                "FLV-3102",
                f"{left} records were not acknowledged by {self._bootstrap} within {timeout_s:g} s",
                hint="see whether the broker runs with `fluvial doctor`",
            )


class LogReader:
    """Reads partitions from offsets that the caller names; belongs to no group, commits nothing."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._bootstrap = settings.bootstrap_servers
        self._closed = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "client.id": client_id,
                "group.id": client_id,  # librdkafka asks for one even where none is joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                # What counts is what stands in the log, and the workers read so: a stranger's transaction, aborted
                # or left open, must not make an audit see another log than they have folded.
                "isolation.level": "read_uncommitted",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": settings.message_bytes_max,
                "receive.message.max.bytes": max(100_000_000, settings.message_bytes_max + 1024),
                "queued.max.messages.kbytes": FETCH_QUEUE_BYTES_MAX // 1024,
                "fetch.wait.max.ms": 100,
                "fetch.queue.backoff.ms": 10,  # the default of 1 s starves a reader whose queue was full once
            }
            | _QUIET
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the consumer."""
        self._closed = True
        self._consumer.close()

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, one past the last offset) of a partition."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                return self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_S, cached=False
                )
            except KafkaException as error:
                # A partition that was just made, or whose broker was just started, has no leader for a moment.
                if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                    action = f"ask for the offsets of {topic}[{partition}]"
                    raise _problem(error.args[0], action, self._bootstrap) from error
            time.sleep(ELECTION_POLL_S)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """The records ``start`` to ``end`` - 1, in order. Waits for records that are not there yet.

        Every offset has one: where a transaction's marker stands, which is no record, it has no key and no value.
        IntegrityProblem FLV-3101 when ``start`` is no longer in the log, FLV-3001 when records were compacted away.
        """
        if start >= end:
            return
        low, _ = self.bounds(topic, partition)
        if start < low:
            raise IntegrityProblem(
                "FLV-3101",
                f"{topic}[{partition}] begins at offset {low}, offset {start} was deleted",
                hint="restore the topic from a backup, or audit from a later version with `fluvial audit --from V`",
            )
        self._consumer.assign([TopicPartition(topic, partition, start)])
        try:
            for record in self._assigned({(topic, partition): start}):
                if record is None:
                    continue
                if record.offset < end:
                    yield record
                if record.offset >= end - 1:
                    return
        finally:
            self._stop_fetching()

    def read_batches(
        self, topic: str, partition: int, start: int, end: int, records_max: int = 500
    ) -> Iterator[list[tuple[int, int, bytes | None]]]:
        """(offset, timestamp in ms, value) of the records ``start`` to ``end`` - 1, many at a time: for bulk readers.

        Transactions' markers are left out. Ends early where nothing came for ``REQUEST_TIMEOUT_S``: TimeoutProblem
        FLV-3102. ``start`` must be in the log.
        """
        self._consumer.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        try:
            at = start
            while at < end:
                batch: list[tuple[int, int, bytes | None]] = []
                for message in self._consumer.consume(records_max, POLL_S):
                    at = (message.offset() or 0) + (message.error() is None)
                    error = message.error()
                    if error is None and at <= end:
                        batch.append((at - 1, message.timestamp()[1], message.value()))
                    elif error is not None and not _passes(error):
                        raise _problem(error, f"read {topic}", self._bootstrap)
                if batch:
                    deadline = time.monotonic() + REQUEST_TIMEOUT_S
                    yield batch
                elif at < end and time.monotonic() > deadline:
                    raise TimeoutProblem(
                        "FLV-3102",
                        f"no record of {topic}[{partition}] came within {REQUEST_TIMEOUT_S:g} s, at offset {at}",
                        hint="see whether the broker runs with `fluvial doctor`",
                    )
        finally:
            self._stop_fetching()

    def last(self, topic: str, partition: int) -> LogRecord | None:
        """The newest record of a partition; None when it is empty."""
        low, high = self.bounds(topic, partition)
        if high <= low:
            return None
        return next(self.read(topic, partition, high - 1, high))

    def follow(
        self, starts: Mapping[tuple[str, int], int], *, timeout_s: float | None = None
    ) -> Iterator[LogRecord | None]:
        """Records from the given offsets on, for ever; None about every quarter second without one.

        As with ``read``, an offset that holds no record comes without key and value.
        Ends when ``timeout_s`` passed without a record. A start of ``OFFSET_END`` (-1) means what comes from now on.
        """
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_END if start < 0 else start)
                for (topic, partition), start in starts.items()
            ]
        )
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        try:
            for record in self._assigned(starts):
                yield record
                if deadline is not None:
                    if record is not None and timeout_s is not None:
                        deadline = time.monotonic() + timeout_s
                    elif time.monotonic() > deadline:
                        return
        finally:
            self._stop_fetching()

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; UsageProblem (FLV-3103) when there is no such topic."""
        return _partitions(self._consumer.list_topics, topic, self._bootstrap)

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset at or after a time; the end of the log when there is none."""
        try:
            found = self._consumer.offsets_for_times(
                [TopicPartition(topic, partition, timestamp_ms)], timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException as error:
            raise _problem(
                error.args[0], f"ask for offsets by time of {topic}[{partition}]", self._bootstrap
            ) from error
        return found[0].offset if found[0].offset >= 0 else self.bounds(topic, partition)[1]

    def _stop_fetching(self) -> None:
        if not self._closed:  # a generator may be closed after its reader
            self._consumer.unassign()

    def _assigned(self, starts: Mapping[tuple[str, int], int]) -> Iterator[LogRecord | None]:
        """What the assigned partitions hold from ``starts`` on, no offset left out; None while there is none."""
        expected = {place: start for place, start in starts.items() if start >= 0}
        while True:
            message = self._consumer.poll(POLL_S)
            if message is None:
                yield None
                continue
            error = message.error()
            at_end = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
            if error is not None and not at_end:
                if error.retriable() or error.code() in _AWAY:
                    yield None  # librdkafka reconnects by itself
                    continue
                raise _problem(error, f"read {message.topic()}", self._bootstrap)
            record = _record(message)
            place = (record.topic, record.partition)
            yield from self._without_record(record, expected.get(place, record.offset))
            expected[place] = record.offset if at_end else record.offset + 1
            yield None if at_end else record

    def _without_record(self, following: LogRecord, start: int) -> Iterator[LogRecord]:
        """The offsets from ``start`` to the ``following`` one: of nothing but transactions' markers, or FLV-3001."""
        if start < following.offset:
            self._require_not_compacted(following, start)
        for offset in range(start, following.offset):
            yield replace(following, offset=offset, key=None, value=None)

    def _require_not_compacted(self, following: LogRecord, start: int) -> None:
        """Kafka takes records out of the middle of a log by compaction only, which our topics do not have."""
        resource = ConfigResource(ResourceType.TOPIC, following.topic)
        admin = AdminClient({"bootstrap.servers": self._bootstrap} | _QUIET)
        try:
            described = admin.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)
            configured = next(iter(described.values())).result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise _problem(
                error.args[0], f"ask for the settings of {following.topic}", self._bootstrap
            ) from error
        if "compact" in configured["cleanup.policy"].value:
            raise IntegrityProblem(
                "FLV-3001",
                f"gap in the log: expected offset {start}, got {following.offset}",
                where=f"{following.topic}[{following.partition}], a compacted topic",
                hint="set its cleanup.policy to `delete`, then restore the records",
            )


def _passes(error: KafkaError) -> bool:
    """Whether librdkafka goes on by itself: at the end of a partition, and while a broker is away."""
    at_end = error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
    return at_end or error.retriable() or error.code() in _AWAY


def _record(message: Message) -> LogRecord:
    # Without its headers: nothing that is read here depends on them, and the client fails on a name that is not text.
    return LogRecord(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        message.value(),
    )


def declare_topics(settings: Settings, topics: Iterable[Topic]) -> list[str]:
    """Create the topics that are missing; returns their names. UsageProblem (FLV-3104) when one exists otherwise."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers} | _QUIET)
    wanted = {topic.name: topic for topic in topics}
    try:
        present = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        raise _problem(error.args[0], "list topics", settings.bootstrap_servers) from error
    for name in sorted(wanted.keys() & present.keys()):
        if len(present[name].partitions) != wanted[name].partitions:
            raise UsageProblem(
                "FLV-3104",
                f"topic {name} has {len(present[name].partitions)} partitions, "
                f"the task wants {wanted[name].partitions}",
                hint="choose another task name, or delete the topic",
            )
    missing = [
        NewTopic(
            name,
            num_partitions=wanted[name].partitions,
            replication_factor=-1,
            config=wanted[name].config(settings.message_bytes_max),
        )
        for name in sorted(wanted.keys() - present.keys())
    ]
    if missing:
        for name, created in admin.create_topics(missing, request_timeout=REQUEST_TIMEOUT_S).items():
            try:
                created.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise _problem(
                        error.args[0], f"create topic {name}", settings.bootstrap_servers
                    ) from error
        _await_leaders(admin, {topic.topic for topic in missing}, settings.bootstrap_servers)
    return [topic.topic for topic in missing]


class BrokerProbe:
    """Asks the broker, as often as wanted over one connection, whether it answers."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers} | _QUIET)

    def answers(self, timeout_s: float = 3.0) -> bool:
        """Whether a broker answers within ``timeout_s``."""
        try:
            self._admin.describe_cluster(request_timeout=timeout_s).result(timeout_s + 1.0)
        except (KafkaException, TimeoutError):
            return False
        return True


def require_broker(settings: Settings, timeout_s: float = 3.0) -> None:
    """ConnectionProblem (FLV-3100) unless a broker answers."""
    if not reachable(settings, timeout_s):
        raise ConnectionProblem(
            "FLV-3100",
            "no broker answers",
            where=f"broker {settings.bootstrap_servers}",
            hint="see whether the broker runs with `fluvial doctor`, or start it with `fluvial up`",
        )


def reachable(settings: Settings, timeout_s: float = 3.0) -> bool:
    """Whether a broker answers."""
    return BrokerProbe(settings).answers(timeout_s)


# librdkafka's own codes have an underscore and are public all the same.
_ELECTING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
_AWAY = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
    }
)
_QUIET: dict[str, Any] = {"log_level": 2, "log.connection.close": False, "error_cb": lambda _error: None}


def _await_leaders(admin: AdminClient, names: set[str], bootstrap: str) -> None:
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        if all(
            name in topics and all(p.leader >= 0 for p in topics[name].partitions.values()) for name in names
        ):
            return
        time.sleep(0.05)
    raise TimeoutProblem(
        "FLV-3102", f"new topics got no leader from {bootstrap} within {REQUEST_TIMEOUT_S:g} s"
    )


def _partitions(list_topics: Callable[..., Any], topic: str, bootstrap: str) -> list[int]:
    try:
        found = list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics.get(topic)
    except KafkaException as error:
        raise _problem(error.args[0], f"look up {topic}", bootstrap) from error
    if found is None or found.error is not None or not found.partitions:
        raise UsageProblem(
            "FLV-3103", f"there is no topic {topic}", hint="list the tasks with `fluvial task list`"
        )
    return sorted(found.partitions)


def _problem(error: KafkaError, action: str, bootstrap: str) -> FluvialError:
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return UsageProblem(
            "FLV-3105",
            f"cannot {action}: the record is larger than the broker takes",
            hint="the limit is one setting: `fluvial config show`",
        )
    return ConnectionProblem(
        "FLV-3100",
        f"cannot {action}: {error.str()}",
        where=f"broker {bootstrap}",
        hint="see whether the broker runs with `fluvial doctor`, or start it with `fluvial up`",
    )
