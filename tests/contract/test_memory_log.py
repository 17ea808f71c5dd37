"""What ``tests/contract/test_log.py`` asks of Kafka's writer and reader, asked of those in memory."""

from __future__ import annotations

import threading

import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.partitioning import partition_of
from backends.log import LogRecord, RecordReader, RecordWriter
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter

TOPIC = "updates"
PARTITIONS = 4


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({TOPIC: PARTITIONS}, ManualClock(1_000.0))


def test_append_gives_consecutive_offsets_that_are_safe_at_once(log: MemoryLog) -> None:
    writer: RecordWriter = MemoryWriter(log)
    futures = [writer.append(TOPIC, b"%d" % number, partition=3) for number in range(200)]
    assert [future.result(timeout=0).offset for future in futures] == list(range(200))


def test_the_key_chooses_the_partition_that_the_fold_expects(log: MemoryLog) -> None:
    ids = [f"d-{number:04d}" for number in range(500)]
    writer = MemoryWriter(log)
    chosen = [writer.append_now(TOPIC, b"x", key=device.encode()).partition for device in ids]
    assert chosen == [partition_of(device, PARTITIONS) for device in ids]


def test_a_range_is_read_exactly_with_times_keys_and_headers(log: MemoryLog) -> None:
    writer = MemoryWriter(log)
    for number in range(20):
        writer.append_now(TOPIC, b"%d" % number, key=b"k", partition=1, headers=(("h", b"v"),))
    with MemoryReader(log) as reader:
        same: RecordReader = reader
        assert same.bounds(TOPIC, 1) == (0, 20)
        assert list(same.read(TOPIC, 1, 5, 7)) == [
            LogRecord(TOPIC, 1, number, 1_000_000, b"k", b"%d" % number, (("h", b"v"),)) for number in (5, 6)
        ]
        assert list(same.read(TOPIC, 1, 7, 7)) == []
        last = same.last(TOPIC, 1)
        assert last is not None and last.offset == 19
        assert same.last(TOPIC, 0) is None


def test_reading_beyond_the_end_waits_for_what_is_not_there_yet(log: MemoryLog) -> None:
    writer = MemoryWriter(log)
    writer.append_now(TOPIC, b"first", partition=0)
    got: list[bytes | None] = []
    first = threading.Event()

    def read() -> None:
        for record in MemoryReader(log).read(TOPIC, 0, 0, 2):
            got.append(record.value)
            first.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert first.wait(10)
    assert got == [b"first"]
    writer.append_now(TOPIC, b"second", partition=0)
    thread.join(10)
    assert got == [b"first", b"second"]


def test_a_topic_that_is_not_there_is_said(log: MemoryLog) -> None:
    for ask in (
        lambda: MemoryReader(log).bounds("nowhere", 0),
        lambda: MemoryReader(log).bounds(TOPIC, PARTITIONS),
        lambda: MemoryWriter(log).append_now("nowhere", b"x"),
        lambda: MemoryReader(log).partitions("nowhere"),
    ):
        with pytest.raises(UsageProblem) as caught:
            ask()
        assert caught.value.error_id == "FLV-3103"


def test_a_kept_log_is_loaded_as_it_stood_and_without_gaps(log: MemoryLog) -> None:
    kept = [LogRecord(TOPIC, 2, number, 77 + number, None, None) for number in range(3)]
    for record in kept:
        log.load(record)
    assert list(MemoryReader(log).read(TOPIC, 2, 0, 3)) == kept
    with pytest.raises(IntegrityProblem):
        log.load(LogRecord(TOPIC, 2, 4, 0, None, None))
