"""What the log promises, run against the one in memory, librdkafka's own mock cluster and the real broker."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from aggregation.errors import FluvialError
from aggregation.partitioning import partition_of
from backends.kafka import configuration, writing
from backends.kafka.admin import declare_topics, reachable
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import Outgoing, RecordReader, RecordWriter
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.observer import Observer
from backends.settings import UPDATE_BYTES_MAX_DEFAULT, Settings, StoreSettings
from schemas.envelope import open_envelope
from schemas.topics import Topic, topics_of, updates_topic
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 4  # as many as the mock cluster makes
IDS = 1000
WAIT_S = 180.0


@contextmanager
def mock_cluster(folder: Path) -> Iterator[Settings]:
    """Settings of a mock broker that lives in this process."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=60).brokers.values()))
    store = StoreSettings(kind="file", path=folder / "objects")
    yield Settings(home=folder, bootstrap_servers=f"{broker.host}:{broker.port}", store=store)
    cluster.flush(1)


@pytest.fixture
def kafka(stack: Settings) -> Settings:
    """The real broker, for what the mock cluster does not do."""
    return stack


@dataclass(frozen=True)
class Log:
    """One log, with ways in and out of it."""

    writer: Callable[[], RecordWriter]
    reader: Callable[[], RecordReader]


@pytest.fixture(params=["mock", pytest.param("kafka", marks=pytest.mark.integration)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "kafka":
        yield request.getfixturevalue("stack")
        return
    with mock_cluster(tmp_path) as settings:
        yield settings


@pytest.fixture
def name() -> str:
    """A topic of the test's own."""
    return f"contract-{uuid.uuid4().hex}"


@pytest.fixture
def topic(broker: Settings, name: str) -> str:
    """The topic, there."""
    make_topic(broker, name)
    return name


@pytest.fixture(params=["memory", "mock", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Iterator[Log]:
    """A log that has the topic."""
    if request.param == "memory":
        memory = MemoryLog({name: PARTITIONS}, ManualClock(1_000.0))
        yield Log(lambda: MemoryWriter(memory), lambda: MemoryReader(memory))
    elif request.param == "kafka":
        yield on_broker(request.getfixturevalue("stack"), name)
    else:
        with mock_cluster(tmp_path) as settings:
            yield on_broker(settings, name)


def on_broker(settings: Settings, topic: str) -> Log:
    make_topic(settings, topic)
    return Log(lambda: LogWriter(settings, "writer"), lambda: reader_of(settings))


def make_topic(settings: Settings, name: str) -> None:
    """The mock cluster knows no declaring, it makes what it is asked for."""
    if is_mock(settings):
        admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
        admin.list_topics(name, timeout=WAIT_S)
    else:
        declare_topics(settings, [table(name)])


def is_mock(settings: Settings) -> bool:
    return settings.store.kind == "file" and not (settings.home / "stack.json").exists()


def table(name: str, partitions: int = PARTITIONS) -> Topic:
    return Topic(name, ("ClientUpdate",), "device_id", partitions, -1)


def reader_of(settings: Settings) -> LogReader:
    return LogReader(settings, f"contract-{uuid.uuid4().hex}")


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


# -- what is asked of a broker only


def test_follow_gives_what_is_there_and_then_what_comes(broker: Settings, topic: str) -> None:
    writer = LogWriter(broker, "writer")
    writer.append_now(topic, b"0", partition=0)
    writer.append_now(topic, b"1", partition=0)
    with reader_of(broker) as reader:
        got = []
        for record in reader.follow({(topic, 0): 1, (topic, 3): 0}, timeout_s=WAIT_S):
            if record is None:
                continue
            got.append((record.partition, record.value))
            if len(got) == 1:
                writer.append_now(topic, b"later", partition=3)
            else:
                break
        assert got == [(0, b"1"), (3, b"later")]


def test_follow_ends_after_its_limit_without_a_record(broker: Settings, topic: str) -> None:
    with reader_of(broker) as reader:
        assert [r for r in reader.follow({(topic, 0): 0}, timeout_s=0.3) if r is not None] == []


def test_a_topic_tells_its_partitions(broker: Settings, topic: str) -> None:
    with reader_of(broker) as reader:
        assert reader.partitions(topic) == list(range(PARTITIONS))


def test_a_record_beyond_the_one_limit_is_refused_with_its_name(broker: Settings, topic: str) -> None:
    writer = LogWriter(broker, "writer")
    with pytest.raises(FluvialError) as caught:
        writer.append_now(topic, bytes(broker.message_bytes_max + 1), partition=0)
    assert caught.value.error_id == "FLV-3105"


def test_of_what_is_appended_together_the_refused_are_told_and_the_others_stand(
    broker: Settings, topic: str
) -> None:
    told: list[tuple[str, int]] = []

    class Told(Observer):
        def produced(self, topic: str, seconds: float, error: FluvialError | None, records: int = 1) -> None:
            told.append(("" if error is None else error.error_id, records))

    writer = LogWriter(broker, "writer", observer=Told())
    large = Outgoing(b"", bytes(broker.message_bytes_max + 1))
    together = writer.append_together(
        topic, [Outgoing(b"k", b"0"), large, Outgoing(b"k", b"1"), large], partition=0
    )
    assert [(record, problem.error_id) for record, problem in together.refused] == [(large, "FLV-3105")] * 2
    writer.flush(WAIT_S)
    assert (together.unanswered, together.unsafe) == (0, 2)
    assert sorted(told) == [("", 2), ("FLV-3105", 1), ("FLV-3105", 1)]
    with reader_of(broker) as reader:
        assert [one.value for one in reader.read(topic, 0, *reader.bounds(topic, 0))] == [b"0", b"1"]


def test_more_than_the_producer_holds_waits_for_room_and_keeps_its_order(
    broker: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configuration.producer_configuration
    small = {"queue.buffering.max.messages": 7}
    monkeypatch.setattr(writing, "producer_configuration", lambda *a, **k: made(*a, **k) | small)
    writer = LogWriter(broker, "writer")
    together = writer.append_together(topic, [Outgoing(None, b"%d" % i) for i in range(40)], partition=1)
    writer.flush(WAIT_S)
    assert together.unsafe == 0
    with reader_of(broker) as reader:
        assert [one.value for one in reader.read(topic, 1, 0, 40)] == [b"%d" % i for i in range(40)]


def test_what_the_broker_never_answers_for_comes_back_as_it_was_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configuration.producer_configuration
    soon = {"delivery.timeout.ms": 100}
    monkeypatch.setattr(writing, "producer_configuration", lambda *a, **k: made(*a, **k) | soon)
    nowhere = Settings(
        home=tmp_path, bootstrap_servers="127.0.0.1:9", store=StoreSettings(kind="file", path=tmp_path)
    )
    writer = LogWriter(nowhere, "writer")
    records = [Outgoing(b"", b"0"), Outgoing(None, b"1"), Outgoing(b"k", b"2", (("h", b"1"),))]
    together = writer.append_together("t", records, partition=0)
    assert together.unanswered == 3
    writer.flush(WAIT_S)
    assert [record for record, _ in together.refused] == records
    assert {problem.error_id for _, problem in together.refused} == {"FLV-3100"}


def test_a_broker_that_is_away_is_a_connection_problem_and_not_a_hang(tmp_path: Path) -> None:
    store = StoreSettings(kind="file", path=tmp_path)
    nowhere = Settings(home=tmp_path, bootstrap_servers="127.0.0.1:9", store=store)
    assert reachable(nowhere, timeout_s=1.0) is False
    writer = LogWriter(nowhere, "writer")
    writer.append("t", b"x")
    with pytest.raises(FluvialError) as caught:
        writer.flush(0.5)
    assert caught.value.error_id == "FLV-3102"


# -- what only the real broker does


@pytest.mark.integration
def test_a_topic_that_is_not_there_is_named(kafka: Settings, name: str) -> None:
    with reader_of(kafka) as reader, pytest.raises(FluvialError) as caught:
        reader.partitions(name)
    assert caught.value.error_id == "FLV-3103"
    assert name in caught.value.message


@pytest.mark.integration
def test_declaring_twice_is_harmless_and_another_number_of_partitions_is_refused(
    kafka: Settings, name: str
) -> None:
    assert declare_topics(kafka, [table(name)]) == [name]
    assert declare_topics(kafka, [table(name)]) == []
    with pytest.raises(FluvialError) as caught:
        declare_topics(kafka, [table(name, PARTITIONS + 1)])
    assert caught.value.error_id == "FLV-3104"
    assert f"has {PARTITIONS} partitions" in caught.value.message


@pytest.mark.integration
def test_a_start_that_was_deleted_is_an_integrity_problem(kafka: Settings, name: str) -> None:
    declare_topics(kafka, [table(name, 1)])
    writer = LogWriter(kafka, "writer")
    for number in range(10):
        writer.append(name, b"%d" % number, partition=0)
    writer.flush(WAIT_S)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_records([KafkaPartition(name, 0, 4)]).values():
        future.result(WAIT_S)
    with reader_of(kafka) as reader:
        assert reader.bounds(name, 0) == (4, 10)
        with pytest.raises(FluvialError) as caught:
            list(reader.read(name, 0, 3, 10))
        assert caught.value.error_id == "FLV-3101"
        assert [record.offset for record in reader.read(name, 0, 4, 10)] == list(range(4, 10))


@pytest.mark.integration
def test_an_update_of_8_mb_passes_producer_broker_and_consumer(kafka: Settings, name: str) -> None:
    declare_topics(kafka, [table(name, 1)])
    assert kafka.update_bytes_max == UPDATE_BYTES_MAX_DEFAULT == 8 << 20
    record = factories.update_record("d-0001")
    record["tensors"][0]["data"] = b""
    framing = len(factories.device_signer("d-0001").sign("ClientUpdate", record))
    record["tensors"][0]["data"] = bytes(UPDATE_BYTES_MAX_DEFAULT)
    value = factories.device_signer("d-0001").sign("ClientUpdate", record)
    assert UPDATE_BYTES_MAX_DEFAULT < len(value) <= kafka.message_bytes_max
    assert len(value) - UPDATE_BYTES_MAX_DEFAULT < framing + 64
    writer = LogWriter(kafka, "writer")
    for _ in range(3):
        writer.append(name, value, partition=0)
    writer.flush(WAIT_S)
    with reader_of(kafka) as reader:
        for got in reader.read(name, 0, 0, 3):
            assert got.value == value
    assert len(open_envelope(value).record["tensors"][0]["data"]) == UPDATE_BYTES_MAX_DEFAULT


@pytest.mark.integration
def test_the_broker_itself_refuses_what_is_larger_than_the_topic_takes(kafka: Settings, name: str) -> None:
    """A producer with a larger setting of its own gets the broker's answer, under the same name."""
    declare_topics(kafka, [table(name, 1)])
    careless = msgspec.structs.replace(kafka, update_bytes_max=2 * kafka.update_bytes_max)
    with pytest.raises(FluvialError) as caught:
        LogWriter(careless, "writer").append_now(name, bytes(kafka.message_bytes_max + 4096), partition=0)
    assert caught.value.error_id == "FLV-3105"


@pytest.mark.integration
def test_topics_are_stamped_by_the_broker_and_kept_for_ever(kafka: Settings) -> None:
    task = f"t-{uuid.uuid4().hex[:10]}"
    declare_topics(kafka, topics_of(task, {"eu": 2}))
    topic = updates_topic(task, "eu")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
    config = {name: entry.value for name, entry in next(iter(described.values())).result(WAIT_S).items()}
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")
    assert config["cleanup.policy"] == "delete"
    assert config["max.message.bytes"] == str(kafka.message_bytes_max)

    before_ms = round(time.time() * 1000)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"from the past", partition=1, timestamp=1_000_000)
    assert producer.flush(WAIT_S) == 0
    with reader_of(kafka) as reader:
        record = reader.last(topic, 1)
        assert record is not None and before_ms - 1000 <= record.timestamp_ms <= time.time() * 1000 + 1000
        assert reader.offset_at(topic, 1, before_ms - 1000) == 0
        assert reader.offset_at(topic, 1, record.timestamp_ms + 1) == 1


@pytest.mark.integration
@pytest.mark.parametrize("ending", ["commit", "abort", "none"])
def test_a_strangers_transaction_neither_hides_a_record_nor_leaves_an_offset_out(
    kafka: Settings, name: str, ending: str
) -> None:
    """Its marker takes an offset and is no record. Whoever reads has to see the same, whatever became of it."""
    declare_topics(kafka, [table(name, 1)])
    writer = LogWriter(kafka, "writer")
    writer.append_now(name, b"before", partition=0)
    stranger = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name})
    stranger.init_transactions(WAIT_S)
    stranger.begin_transaction()
    stranger.produce(name, b"inside", partition=0)
    assert stranger.flush(WAIT_S) == 0
    with reader_of(kafka) as reader:
        if ending != "none":
            (stranger.commit_transaction if ending == "commit" else stranger.abort_transaction)(WAIT_S)
            deadline = time.monotonic() + WAIT_S
            while reader.bounds(name, 0)[1] < 3 and time.monotonic() < deadline:
                time.sleep(0.05)  # the marker comes after the answer
            marker = reader.last(name, 0)
            assert marker is not None and (marker.offset, marker.value) == (2, None)
        after = writer.append_now(name, b"after", partition=0).offset
        whole = [b"before", b"inside", *([None] if ending != "none" else []), b"after"]
        assert after == len(whole) - 1
        assert [(r.offset, r.value) for r in reader.read(name, 0, 0, len(whole))] == list(enumerate(whole))
        followed = (
            record for record in reader.follow({(name, 0): 0}, timeout_s=WAIT_S) if record is not None
        )
        assert [next(followed).value for _ in whole] == whole
