"""The topic table: names, keys, partitions, and that everything an audit reads is kept for ever."""

from __future__ import annotations

from schemas import avro as codec
from schemas.records import INGRESS_KINDS
from schemas.topics import (
    DAY_MS,
    FOREVER_MS,
    GUIDES_BYTES_MAX,
    HEARTBEAT_BYTES_MAX,
    HEARTBEATS_KEPT_BYTES,
    topics_of,
)

TABLE = topics_of("digits", {"us": 1, "eu": 2})
BY_NAME = {topic.name: topic for topic in TABLE}


def test_a_task_has_three_topics_a_region_and_two_of_its_own() -> None:
    assert list(BY_NAME) == [
        "fl.digits.updates.eu",
        "fl.digits.verdicts.eu",
        "fl.digits.aggregates.eu",
        "fl.digits.updates.us",
        "fl.digits.verdicts.us",
        "fl.digits.aggregates.us",
        "fl.digits.models",
        "fl.digits.metrics",
    ]


def test_a_guided_task_has_one_more_whose_records_are_small() -> None:
    guided = topics_of("digits", {"us": 1, "eu": 2}, guided=True)
    (guides,) = set(guided) - set(TABLE)
    assert (guides.name, guides.partitions, guides.records) == ("fl.digits.guides", 1, ("GuideAnnouncement",))
    config = guides.config(9_000_000)
    assert config["max.message.bytes"] == str(GUIDES_BYTES_MAX)
    assert (config["retention.ms"], config["message.timestamp.type"]) == (str(FOREVER_MS), "LogAppendTime")


def test_a_task_may_have_a_topic_of_heartbeats_whose_records_are_small_and_soon_gone() -> None:
    with_them = topics_of("digits", {"us": 1, "eu": 2}, heartbeats=True)
    (beats,) = set(with_them) - set(TABLE)
    assert (beats.name, beats.partitions, beats.records) == ("fl.digits.heartbeats", 1, ("Heartbeat",))
    config = beats.config(9_000_000)
    assert config["max.message.bytes"] == str(HEARTBEAT_BYTES_MAX)
    assert config["retention.bytes"] == str(HEARTBEATS_KEPT_BYTES)
    assert (config["retention.ms"], config["cleanup.policy"]) == (str(DAY_MS), "delete")
    assert not beats.is_folded


def test_a_regions_topics_are_co_partitioned() -> None:
    for region, count in {"eu": 2, "us": 1}.items():
        assert {t.partitions for t in TABLE if t.name.endswith(f".{region}")} == {count}


def test_updates_are_keyed_by_device_and_hold_exactly_the_ingress_kinds() -> None:
    topic = BY_NAME["fl.digits.updates.eu"]
    assert topic.key == "device_id"
    assert set(topic.records) == INGRESS_KINDS


def test_every_record_in_the_table_has_a_schema() -> None:
    for topic in TABLE:
        for record in topic.records:
            assert record == "JSON" or codec.schema_for(record).name == record


def test_what_an_audit_reads_is_kept_for_ever_under_log_append_time() -> None:
    for topic in TABLE:
        config = topic.config(9_000_000)
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert config["cleanup.policy"] == "delete"
        assert config["max.message.bytes"] == "9000000"
        if not topic.name.endswith("metrics"):
            assert config["retention.ms"] == str(FOREVER_MS)
            assert config["retention.bytes"] == "-1"


def test_what_strangers_write_into_a_topic_that_is_folded_is_unpacked_by_the_broker() -> None:
    unpacked = {topic.name for topic in TABLE if topic.config(1).get("compression.type") == "uncompressed"}
    assert unpacked == {
        topic.name for topic in TABLE if {"ClientUpdate", "RegionalAggregate"} & set(topic.records)
    }
