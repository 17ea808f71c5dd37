"""What the log in memory does beside the contract of all logs (``test_log``)."""

from __future__ import annotations

import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from backends.log import LogRecord, RecordReader
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter

TOPIC = "updates"
PARTITIONS = 4


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({TOPIC: PARTITIONS}, ManualClock(1_000.0))


def test_a_record_keeps_its_time_key_and_headers(log: MemoryLog) -> None:
    writer = MemoryWriter(log)
    for number in range(20):
        writer.append_now(TOPIC, b"%d" % number, key=b"k", partition=1, headers=(("h", b"v"),))
    with MemoryReader(log) as reader:
        same: RecordReader = reader
        assert same.bounds(TOPIC, 1) == (0, 20)
        assert list(same.read(TOPIC, 1, 5, 7)) == [
            LogRecord(TOPIC, 1, number, 1_000_000, b"k", b"%d" % number, (("h", b"v"),)) for number in (5, 6)
        ]


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
