"""What is said of a topic that somebody else made."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ConfigEntry,
    PartitionMetadata,
    TopicMetadata,
)

from backends.kafka.admin import admin_client
from backends.kafka.durability import IN_SYNC, UNCLEAN, replicas_of
from backends.kafka.topic_settings import Compared, compare_topics, differing_settings
from backends.settings import Settings, StoreSettings
from schemas.topics import topics_of
from tests.small_federation import on_mock_cluster

SETTINGS = Settings(
    home=Path("/nowhere"), bootstrap_servers="a:1", store=StoreSettings(kind="file", path=Path("/nowhere"))
)
OURS = {topic.name: topic.config(SETTINGS.message_bytes_max) for topic in topics_of("digits", {"eu": 2})}


@pytest.mark.parametrize("name", OURS)
def test_a_topic_of_ours_is_as_it_has_to_be(name: str) -> None:
    for fresh in (False, True):
        assert differing_settings(name, OURS[name], SETTINGS.message_bytes_max, fresh=fresh) == {}


@pytest.mark.parametrize("name", [name for name in OURS if "compression.type" in OURS[name]])
def test_that_the_broker_unpacks_what_it_stores_is_asked_of_a_task_that_is_being_created(name: str) -> None:
    theirs = {**OURS[name], "compression.type": "producer"}
    assert differing_settings(name, theirs, SETTINGS.message_bytes_max) == {}
    found = differing_settings(name, theirs, SETTINGS.message_bytes_max, fresh=True)
    assert found == {"compression.type": ("producer", "uncompressed")}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "600000"),
        ("retention.bytes", "1000000"),
        (UNCLEAN, "true"),
    ],
)
@pytest.mark.parametrize("name", OURS)
def test_what_would_lose_or_misdate_records_is_named(name: str, setting: str, value: str) -> None:
    found = differing_settings(name, {**OURS[name], setting: value}, SETTINGS.message_bytes_max)
    operators_choice = name.endswith(".metrics") and setting.startswith("retention.")
    assert found == (
        {} if operators_choice else {setting: (value, {**OURS[name], UNCLEAN: "false"}[setting])}
    )


def test_a_broker_without_topics_of_ours_has_none_that_differ(tmp_path: Path) -> None:
    with on_mock_cluster(tmp_path) as settings:
        assert compare_topics(admin_client(settings), [], settings) == Compared({}, ())


@pytest.mark.parametrize(
    ("code", "hidden"),
    [(KafkaError.TOPIC_AUTHORIZATION_FAILED, ("fl.digits.models",)), (KafkaError.UNKNOWN_TOPIC_OR_PART, ())],
)
def test_what_may_not_be_seen_is_told_from_what_is_not_there(code: int, hidden: tuple[str, ...]) -> None:
    """The answers of a broker with ACLs, which the local stack is not."""

    class Refusing(AdminClient):
        def __init__(self) -> None:
            """Ask nobody."""

        def list_topics(self, *_: Any, **__: Any) -> Any:
            return ClusterMetadata()

        def describe_configs(self, resources: Any, *_: Any, **__: Any) -> Any:
            answer: Future[Any] = Future()
            answer.set_exception(KafkaException(KafkaError(code)))
            return dict.fromkeys(resources, answer)

    assert compare_topics(Refusing(), ["fl.digits.models"], SETTINGS) == Compared({}, hidden)


@pytest.mark.parametrize("missing", sorted({*OURS["fl.digits.updates.eu"], UNCLEAN, IN_SYNC}))
def test_a_setting_that_the_broker_hides_is_no_difference_and_the_topic_counts_as_hidden(
    missing: str,
) -> None:
    """As managed clusters do: the name without a value, or not even that."""
    name = "fl.digits.updates.eu"
    whole = {**OURS[name], UNCLEAN: "false", IN_SYNC: "1"}

    class Hiding(AdminClient):
        def __init__(self, entries: dict[str, ConfigEntry]) -> None:
            """Ask nobody."""
            self.entries = entries

        def list_topics(self, *_: Any, **__: Any) -> Any:
            return ClusterMetadata()

        def describe_configs(self, resources: Any, *_: Any, **__: Any) -> Any:
            answer: Future[Any] = Future()
            answer.set_result(self.entries)
            return dict.fromkeys(resources, answer)

    for value in (None, ""):
        entries = {key: ConfigEntry(key, whole[key]) for key in whole if key != missing}
        if value is None:
            entries[missing] = ConfigEntry(missing, None)
        assert compare_topics(Hiding(entries), [name], SETTINGS, fresh=True) == Compared({}, (name,))
    everything = {key: ConfigEntry(key, value) for key, value in whole.items()}
    assert compare_topics(Hiding(everything), [name], SETTINGS, fresh=True) == Compared({}, ())


@pytest.mark.parametrize(
    ("replicas", "in_sync", "wanted"),
    [
        *((1, 1, None), (2, 1, None), (2, 2, None), (3, 2, None), (3, 3, None), (5, 3, None)),
        *((1, 2, "1"), (2, 3, "1"), (3, 1, "2"), (3, 4, "2"), (5, 1, "2")),
    ],
)
def test_with_copies_enough_two_acknowledge_and_never_more_than_there_are(
    replicas: int, in_sync: int, wanted: str | None
) -> None:
    name = "fl.digits.verdicts.eu"
    values = {**OURS[name], IN_SYNC: str(in_sync), UNCLEAN: "false"}
    found = differing_settings(name, values, SETTINGS.message_bytes_max, replicas=replicas)
    assert found == ({} if wanted is None else {IN_SYNC: (str(in_sync), wanted)})


def test_a_topic_has_as_many_copies_as_its_poorest_partition() -> None:
    topic = TopicMetadata()
    assert (replicas_of(None), replicas_of(topic)) == (1, 1)
    for number, copies in enumerate(([1, 2, 3], [2], [1, 3])):
        topic.partitions[number] = PartitionMetadata()
        topic.partitions[number].replicas = copies
    assert replicas_of(topic) == 1
    del topic.partitions[1]
    assert replicas_of(topic) == 2


def test_only_too_small_messages_differ() -> None:
    name = "fl.digits.updates.eu"
    for size, differs in (("9000000", False), ("1000000", True)):
        found = differing_settings(
            name, {**OURS[name], "max.message.bytes": size}, SETTINGS.message_bytes_max
        )
        assert bool(found) == differs
