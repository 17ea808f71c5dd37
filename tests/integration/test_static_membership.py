"""Two members with one name, and the first has not noticed yet: what it sends next must not throw the second out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from backends.kafka.admin import declare_topics
from backends.kafka.faust import static_membership
from schemas.topics import topics_of, updates_topic

if TYPE_CHECKING:
    from backends.settings import Settings

HEARTBEAT_S = 8.0
"""Long: the test's own commit is the first that the broker hears of the one that was replaced."""
SESSION_S = 10.0


def member(settings: Settings, topic: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=f"group-of-{topic}",
        group_instance_id="worker-0",
        enable_auto_commit=False,
        session_timeout_ms=int(SESSION_S * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
    )


def test_the_commit_of_a_member_that_was_replaced_fences_it_and_not_the_other(stack: Settings) -> None:
    asyncio.run(commit_after_being_replaced(stack))


async def commit_after_being_replaced(settings: Settings) -> None:
    static_membership.install()
    declare_topics(settings, topics_of("two-of-one-name", {"eu": 1}))
    topic = updates_topic("two-of-one-name", "eu")
    here = TopicPartition(topic, 0)
    async with member(settings, topic) as first:
        fenced: list[bool] = []
        first._coordinator.on_fenced = lambda: fenced.append(True)
        await first.commit({here: 0})
        async with member(settings, topic) as second:
            with pytest.raises(CommitFailedError):
                await first.commit({here: 0})
            with pytest.raises(CommitFailedError):
                await first.commit({here: 0})
            assert fenced == [True], "told once"
            await asyncio.sleep(1)  # were it to join again, it would have by now
            await second.commit({here: 0})
            assert second.assignment() == {here}
