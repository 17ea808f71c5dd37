"""Reading ranges and tails of Kafka's partitions, by librdkafka. Methods block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Self

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from aggregation.errors import IntegrityProblem, TimeoutProblem, UsageProblem
from backends.kafka.admin import admin_client, asked
from backends.kafka.configuration import REQUEST_TIMEOUT_S, reader_configuration
from backends.kafka.problems import AWAY, ELECTING, passes, problem_of
from backends.log import LogRecord
from backends.settings import Settings

POLL_S: Final = 0.25
ELECTION_POLL_S: Final = 0.05


class LogReader:
    """Reads partitions from offsets that the caller names; belongs to no group, commits nothing."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._bootstrap = settings.bootstrap_servers
        self._closed = False
        self._settings = settings
        self._consumer = Consumer(reader_configuration(settings, client_id))

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
                if error.args[0].code() not in ELECTING or time.monotonic() > deadline:
                    action = f"ask for the offsets of {topic}[{partition}]"
                    raise problem_of(error.args[0], action, self._bootstrap) from error
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
                    elif error is not None and not passes(error):
                        raise problem_of(error, f"read {topic}", self._bootstrap)
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
            raise problem_of(
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
                if error.retriable() or error.code() in AWAY:
                    yield None  # librdkafka reconnects by itself
                    continue
                raise problem_of(error, f"read {message.topic()}", self._bootstrap)
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
        admin = admin_client(self._settings)
        try:
            described = asked(admin.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S))
            configured = next(iter(described.values())).result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise problem_of(
                error.args[0], f"ask for the settings of {following.topic}", self._bootstrap
            ) from error
        if "compact" in configured["cleanup.policy"].value:
            raise IntegrityProblem(
                "FLV-3001",
                f"gap in the log: expected offset {start}, got {following.offset}",
                where=f"{following.topic}[{following.partition}], a compacted topic",
                hint="set its cleanup.policy to `delete`, then restore the records",
            )


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


def _partitions(list_topics: Callable[..., Any], topic: str, bootstrap: str) -> list[int]:
    try:
        found = list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics.get(topic)
    except KafkaException as error:
        raise problem_of(error.args[0], f"look up {topic}", bootstrap) from error
    if found is None or found.error is not None or not found.partitions:
        raise UsageProblem(
            "FLV-3103", f"there is no topic {topic}", hint="list the tasks with `fluvial task list`"
        )
    return sorted(found.partitions)
