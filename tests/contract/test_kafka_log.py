"""What only the real broker does: topics that are declared, its own limits, deleted starts, transactions."""

from __future__ import annotations

import time
import uuid

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from aggregation.errors import FluvialError
from backends.kafka.admin import declare_topics
from backends.kafka.writing import LogWriter
from backends.settings import UPDATE_BYTES_MAX_DEFAULT, Settings
from schemas.envelope import open_envelope
from schemas.topics import topics_of, updates_topic
from tests import factories
from tests.contract.logs import PARTITIONS, WAIT_S, reader_of, table


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
