"""The topic table: every topic of a task, its key, partitions, retention and timestamps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aggregation.regions import EDGE_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,47}")
"""Narrow, because it becomes part of the names of topics, of the keys of objects, and of patterns of permissions."""
FOREVER_MS: Final = -1
DAY_MS: Final = 86_400_000
METRICS_RETENTION_MS: Final = 30 * DAY_MS
GUIDES_BYTES_MAX: Final = 16_384
"""What a record of a topic of guides may have: an announcement has a thousand bytes, and mergers read what is there."""
HEARTBEAT_BYTES_MAX: Final = 8192
"""What a heartbeat may have: a certificate has at most 4096 bytes, and base64 adds a third."""
HEARTBEATS_KEPT_BYTES: Final = 256 << 20
"""A flood of heartbeats pushes older ones out, and fills no disk."""
UNBOUNDED_BYTES: Final = 1 << 62

Key = Literal["device_id", "partition", "region", "task"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    ``records`` names what stands in it; ``retention_ms`` -1 keeps it for ever, so that audits can read it.
    """

    name: str
    records: tuple[str, ...]
    key: Key
    partitions: int
    retention_ms: int
    timestamp_type: Literal["LogAppendTime"] = "LogAppendTime"

    @property
    def is_folded(self) -> bool:
        """Whether what stands in it makes windows or versions, so that strangers' batches had better be plain."""
        return ".updates." in self.name or ".aggregates." in self.name

    @property
    def is_of_heartbeats(self) -> bool:
        """Whether it has nothing but what devices say of themselves, for looking."""
        return self.name.endswith(".heartbeats")

    @property
    def is_of_guides(self) -> bool:
        """Whether it has nothing but guardians' announcements."""
        return self.name.endswith(".guides")

    def config(self, message_bytes_max: int) -> dict[str, str]:
        """The topic's Kafka configuration."""
        return {
            "message.timestamp.type": self.timestamp_type,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(HEARTBEATS_KEPT_BYTES if self.is_of_heartbeats else -1),
            "cleanup.policy": "delete",
            "max.message.bytes": str(min(message_bytes_max, self._record_bytes_max)),
        } | ({"compression.type": "uncompressed"} if self.is_folded else {})

    @property
    def _record_bytes_max(self) -> int:
        """What one record may have, where that is less than what a broker takes."""
        if self.is_of_heartbeats:
            return HEARTBEAT_BYTES_MAX
        return GUIDES_BYTES_MAX if self.is_of_guides else UNBOUNDED_BYTES


def updates_topic(task: str, region: str) -> str:
    """Ingress: device updates, and the control records that the fold obeys, in one order a partition."""
    return f"fl.{task}.updates.{region}"


def verdicts_topic(task: str, region: str) -> str:
    """One verdict per offset of the updates topic, in the partition of the same number."""
    return f"fl.{task}.verdicts.{region}"


def aggregates_topic(task: str, region: str) -> str:
    """One record per closed window, in the partition of the same number."""
    return f"fl.{task}.aggregates.{region}"


def models_topic(task: str) -> str:
    """Announcements, one per region and version, and Revokes of who may sign these or windows."""
    return f"fl.{task}.models"


def edge_models_topic(task: str, edge: str) -> str:
    """What an edge copies of the announcements above it, for its devices."""
    return f"{models_topic(task)}.{edge}"


def metrics_topic(task: str) -> str:
    """Flat JSON for analysts."""
    return f"fl.{task}.metrics"


def guides_topic(task: str) -> str:
    """Guardians' announcements of guides, for mergers; of tasks whose first policy is guided only."""
    return f"fl.{task}.guides"


def heartbeats_topic(task: str) -> str:
    """What devices say of themselves, for looking; of tasks that were created with it only."""
    return f"fl.{task}.heartbeats"


def topics_of(
    task: str, partitions: Mapping[str, int], *, guided: bool = False, heartbeats: bool = False
) -> tuple[Topic, ...]:
    """The whole table for a task; ``partitions`` maps each region to its number of partitions.

    ``guided``: with the topic of guides, see ``Genesis.is_guided``. ``heartbeats``: with the topic of these.
    """
    table = [
        topic for region, count in sorted(partitions.items()) for topic in _of_region(task, region, count)
    ]
    table.append(Topic(models_topic(task), ("ModelAnnouncement", "Revoke"), "region", 1, FOREVER_MS))
    if guided:
        table.append(Topic(guides_topic(task), ("GuideAnnouncement",), "task", 1, FOREVER_MS))
    if heartbeats:
        table.append(Topic(heartbeats_topic(task), ("Heartbeat",), "device_id", 1, DAY_MS))
    table.append(Topic(metrics_topic(task), ("JSON",), "task", 1, METRICS_RETENTION_MS))
    return tuple(table)


def topics_of_edge(task: str, edge: str) -> tuple[Topic, ...]:
    """The topics of an edge, on its own Kafka: those of a region with one partition, announcements, and metrics."""
    news = edge_models_topic(task, edge)
    return (
        *_of_region(task, edge, EDGE_PARTITIONS),
        Topic(news, ("ModelAnnouncement", "Revoke"), "region", 1, FOREVER_MS),
        Topic(metrics_topic(task), ("JSON",), "task", 1, METRICS_RETENTION_MS),
    )


def _of_region(task: str, region: str, count: int) -> list[Topic]:
    ingress = ("ClientUpdate", "Barrier", "Tick", "Revoke", "Skip", "Pardon", "EdgeAggregate")
    return [
        Topic(updates_topic(task, region), ingress, "device_id", count, FOREVER_MS),
        Topic(verdicts_topic(task, region), ("Verdict",), "device_id", count, FOREVER_MS),
        Topic(aggregates_topic(task, region), ("RegionalAggregate",), "partition", count, FOREVER_MS),
    ]
