"""How many copies of a record there are, and how many have to hold it before it is acknowledged."""

from __future__ import annotations

from typing import Final

from confluent_kafka.admin import TopicMetadata

UNCLEAN: Final = "unclean.leader.election.enable"
IN_SYNC: Final = "min.insync.replicas"
REPLICAS_THAT_SPARE_ONE: Final = 3
"""Of so many copies one may be away while records are still acknowledged by two."""


def least_in_sync(replicas: int) -> int:
    """How many copies have to hold a record before it is acknowledged, of so many."""
    return 2 if replicas >= REPLICAS_THAT_SPARE_ONE else 1


def replicas_of(topic: TopicMetadata | None) -> int:
    """Copies of the topic's partition that has fewest, at least 1; of a topic that is not there, 1."""
    partitions = topic.partitions.values() if topic is not None else ()
    return max(1, min((len(partition.replicas) for partition in partitions), default=1))
