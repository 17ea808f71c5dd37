"""What the log promises, run against the one in memory, librdkafka's own mock cluster and the real broker."""

from __future__ import annotations

import threading

from aggregation.partitioning import partition_of
from backends.log import Outgoing
from tests.contract.logs import PARTITIONS, WAIT_S, Log

IDS = 1000


def test_append_gives_consecutive_offsets(log: Log, name: str) -> None:
    writer = log.writer()
    futures = [writer.append(name, b"%d" % number, partition=3) for number in range(200)]
    writer.flush(WAIT_S)
    positions = [future.result(timeout=0) for future in futures]
    assert [position.offset for position in positions] == list(range(200))
    assert {(position.topic, position.partition) for position in positions} == {(name, 3)}


def test_the_key_chooses_the_partition_that_the_fold_expects(log: Log, name: str) -> None:
    writer = log.writer()
    ids = [f"d-{number:04d}" for number in range(IDS)]
    futures = [writer.append(name, b"x", key=device.encode()) for device in ids]
    writer.flush(WAIT_S)
    chosen = [future.result(timeout=0).partition for future in futures]
    assert chosen == [partition_of(device, PARTITIONS) for device in ids]
    assert len(set(chosen)) == PARTITIONS


def test_what_is_appended_together_stands_together_in_its_order(log: Log, name: str) -> None:
    writer = log.writer()
    records = [Outgoing(b"" if number % 2 else None, b"%d" % number) for number in range(200)]
    records[100] = Outgoing(b"k", b"100", (("h", b"1"),))  # a batch of librdkafka's has no headers
    first = writer.append_together(name, records[:150], partition=3)
    alone = writer.append(name, b"alone", partition=3, headers=records[100].headers)
    second = writer.append_together(name, records[150:], partition=3)
    writer.flush(WAIT_S)
    assert (first.unsafe, second.unsafe, alone.result(timeout=0).offset) == (0, 0, 150)
    records.insert(150, Outgoing(None, b"alone"))
    with log.reader() as reader:
        read = list(reader.read(name, 3, 0, 201))
    assert [(one.key, one.value) for one in read] == [(one.key, one.value) for one in records]
    assert read[100].headers == read[150].headers  # the mock cluster keeps none
    assert {one.headers for at, one in enumerate(read) if at not in {100, 150}} == {()}


def test_nothing_appended_together_is_nothing(log: Log, name: str) -> None:
    writer = log.writer()
    assert writer.append_together(name, [], partition=3).unsafe == 0
    writer.flush(WAIT_S)
    with log.reader() as reader:
        assert reader.bounds(name, 3) == (0, 0)


def test_a_range_is_read_exactly(log: Log, name: str) -> None:
    writer = log.writer()
    for number in range(20):
        writer.append(name, b"%d" % number, key=b"k", partition=1)
    writer.flush(WAIT_S)
    with log.reader() as reader:
        assert reader.bounds(name, 1) == (0, 20)
        records = list(reader.read(name, 1, 5, 9))
        assert [(r.offset, r.value, r.key, r.partition) for r in records] == [
            (number, b"%d" % number, b"k", 1) for number in range(5, 9)
        ]
        assert list(reader.read(name, 1, 7, 7)) == []
        again = [r.offset for r in reader.read(name, 1, 0, 20)]
        assert again == list(range(20)), "a reader may go back"


def test_headers_come_with_their_records(log: Log, name: str) -> None:
    """Workers vouch for verdicts in them (ADR 34)."""
    headers = (("a", b"\x00one"), ("a", b""), ("b", b"two"))
    writer = log.writer()
    for more in ((), headers, ()):
        writer.append(name, b"x", partition=2, headers=more)
    writer.flush(WAIT_S)
    with log.reader() as reader:
        assert [record.headers for record in reader.read(name, 2, 0, 3)] == [(), headers, ()]


def test_reading_beyond_the_end_waits_for_what_is_not_there_yet(log: Log, name: str) -> None:
    writer = log.writer()
    writer.append_now(name, b"first", partition=0)
    got: list[bytes | None] = []
    first = threading.Event()

    def read() -> None:
        with log.reader() as reader:
            for record in reader.read(name, 0, 0, 2):
                got.append(record.value)
                first.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert first.wait(WAIT_S)
    assert got == [b"first"] and thread.is_alive()
    writer.append_now(name, b"second", partition=0)
    thread.join(WAIT_S)
    assert got == [b"first", b"second"]


def test_last_is_the_newest_record(log: Log, name: str) -> None:
    with log.reader() as reader:
        assert reader.last(name, 2) is None
        writer = log.writer()
        for value in (b"old", b"new"):
            writer.append_now(name, value, partition=2)
        last = reader.last(name, 2)
        assert last is not None and (last.offset, last.value) == (1, b"new")
