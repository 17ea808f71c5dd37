"""Topics that somebody made first: who would begin to work on them refuses, names what differs, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from backends.kafka.admin import admin_client
from fluvial import cli
from schemas.topics import aggregates_topic, models_topic, topics_of, updates_topic, verdicts_topic
from tests import factories
from tests.integration.pipeline import Federation
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.settings import Settings

SLOT = ("eu", 0)
REFUSED = 4


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, factories.policy())
    yield federation
    federation.end()


def set_topic(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(WAIT_S)


@pytest.mark.parametrize(
    ("kind", "topic_of", "name", "wrong", "right"),
    [
        ("worker", updates_topic, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("worker", verdicts_topic, "cleanup.policy", "compact", "delete"),
        ("merger", aggregates_topic, "retention.ms", "600000", "-1"),
        ("worker", updates_topic, "unclean.leader.election.enable", "true", "false"),
        ("merger", updates_topic, "min.insync.replicas", "2", "1"),
        ("merger", lambda task, _: models_topic(task), "retention.bytes", "1000000", "-1"),
    ],
)
def test_nobody_begins_on_a_topic_that_was_changed_and_a_worker_does_when_it_is_set_right(
    federation: Federation, kind: str, topic_of: Callable[[str, str], str], name: str, wrong: str, right: str
) -> None:
    topic, admin = topic_of(federation.task, "eu"), admin_client(federation.settings)
    set_topic(admin, topic, name, wrong)
    refused = federation.start(kind)
    assert refused.process.wait(WAIT_S) == REFUSED, refused.log
    assert f"error[FLV-3106]: {topic} has {name}={wrong}, not {right}" in refused.log
    set_topic(admin, topic, name, right)
    if kind == "worker":
        federation.start(kind)
        federation.await_verdicts(SLOT, federation.append(SLOT, federation.update("d-1")))


def test_no_task_is_created_on_topics_that_somebody_made_first(
    stack: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    task, admin = "made-first", admin_client(stack)
    config = {"cleanup.policy": "delete", "message.timestamp.type": "CreateTime", "retention.ms": "600000"}
    new = [NewTopic(topic.name, topic.partitions, 1, config=config) for topic in topics_of(task, {"eu": 1})]
    for made in admin.create_topics(new).values():
        made.result(WAIT_S)
    create = ["--home", str(stack.home), "task", "create", "digits", "--name", task, "--regions", "eu:1"]
    assert cli.main(create) == REFUSED
    told = capfd.readouterr().err
    assert "error[FLV-3106]" in told
    assert "message.timestamp.type=CreateTime, not LogAppendTime, retention.ms=600000, not -1" in told
    assert "and 2 more" in told
    for topic in topics_of(task, {"eu": 1}):
        set_topic(admin, topic.name, "message.timestamp.type", "LogAppendTime")
        set_topic(admin, topic.name, "retention.ms", str(topic.retention_ms))
        set_topic(admin, topic.name, "max.message.bytes", str(stack.message_bytes_max))
    assert cli.main(create) == REFUSED
    assert "compression.type=producer, not uncompressed" in capfd.readouterr().err
    for topic in topics_of(task, {"eu": 1}):
        if topic.is_folded:
            set_topic(admin, topic.name, "compression.type", "uncompressed")
    assert cli.main(create) == 0, capfd.readouterr().err
