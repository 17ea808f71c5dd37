"""Who needs what of Kafka, by role: the least with which a task runs, from the topic table.

The topics are named one by one, so that a permission for one task is none for another. What a role may not do here, its
processes do not try; ``fluvial task acls`` prints it, and a test takes each of it away in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from schemas.topics import (
    aggregates_topic,
    guides_topic,
    heartbeats_topic,
    metrics_topic,
    models_topic,
    topics_of,
    updates_topic,
    verdicts_topic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Operation = Literal["Read", "Write", "Describe", "DescribeConfigs"]
AccessRole = Literal["device", "worker", "merger", "evaluator", "guardian", "operator", "reader"]
ROLES: Final[tuple[AccessRole, ...]] = (
    "device", "worker", "merger", "evaluator", "guardian", "operator", "reader",
)  # fmt: skip
"""``guardian`` is of tasks whose policy is guided.
``reader`` looks and writes nothing: audits, the console, exports. ``operator`` also revokes, parks and pardons.

Who creates and removes tasks administers the cluster, and is none of these.
"""
OF_A_REGION: Final = frozenset({"device", "worker"})
"""Roles that have a region, and permissions in no other."""

_READ: Final = ("Read",)
_WRITE: Final = ("Write",)
_BOTH: Final = ("Read", "Write")
"""Who may read or write may describe as well."""
_SET: Final = ("DescribeConfigs",)
"""Of what is looked at before work begins: how a topic is set."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission: what a role may do with one topic or group. ``is_prefix``: with all whose names begin so.

    ``region`` is that of the role's holder; "" for a role that has none.
    """

    role: AccessRole
    kind: Literal["topic", "group"]
    name: str
    operations: tuple[Operation, ...]
    region: str = ""
    is_prefix: bool = False


def worker_group(task: str, region: str) -> str:
    """The consumer group of a region's workers."""
    return f"fluvial-{task}-{region}"


OwnGroupRole = Literal["merger", "evaluator", "guardian"]


def own_group(task: str, role: OwnGroupRole, rest: str = "") -> str:
    """The consumer group of one merger, evaluator or guardian; without ``rest``, how all of them begin."""
    return f"fluvial-{task}-{role}-{rest}"


def access_of(
    task: str, partitions: Mapping[str, int], *, guided: bool = False, heartbeats: bool = False
) -> tuple[Grant, ...]:
    """Every permission of a task; ``partitions`` maps each region to its number of partitions.

    ``guided``: its policy is, so that it has guardians and a topic of guides. ``heartbeats``: it has a topic of these.
    """
    regions = sorted(partitions)
    models, metrics = models_topic(task), metrics_topic(task)
    grants: list[Grant] = []

    def topic(role: AccessRole, name: str, operations: tuple[Operation, ...], region: str = "") -> None:
        grants.append(Grant(role, "topic", name, operations, region))

    for region in regions:
        updates, verdicts, aggregates = (
            name(task, region) for name in (updates_topic, verdicts_topic, aggregates_topic)
        )
        topic("device", updates, _WRITE, region)
        topic("device", verdicts, _READ, region)
        topic("device", models, _READ, region)
        if heartbeats:
            topic("device", heartbeats_topic(task), _WRITE, region)
        for one in (updates, verdicts, aggregates):
            topic("worker", one, (*_BOTH, *_SET), region)
        topic("worker", metrics, _WRITE, region)
        grants.append(Grant("worker", "group", worker_group(task, region), _READ, region))
        topic("merger", updates, (*_BOTH, *_SET))
        topic("merger", verdicts, _SET)
        topic("merger", aggregates, (*_READ, *_SET))
        topic("operator", updates, (*_BOTH, *_SET))
        group = worker_group(task, region)
        grants += [Grant(role, "group", group, ("Describe",)) for role in ("operator", "reader")]
    topic("merger", models, (*_BOTH, *_SET))
    topic("merger", metrics, (*_WRITE, *_SET))
    topic("evaluator", models, _READ)
    topic("evaluator", metrics, _BOTH)
    alone: list[OwnGroupRole] = ["merger", "evaluator"]
    if guided:
        alone.append("guardian")
        topic("guardian", models, _READ)
        topic("guardian", guides_topic(task), _BOTH)
        topic("merger", guides_topic(task), (*_READ, *_SET))
    grants.extend(Grant(role, "group", own_group(task, role), _READ, is_prefix=True) for role in alone)
    for known in topics_of(task, partitions, guided=guided, heartbeats=heartbeats):
        topic("reader", known.name, _READ)
        if known.name == models:
            topic("operator", models, (*_BOTH, *_SET))
        elif ".updates." not in known.name:
            topic("operator", known.name, (*_READ, *_SET))
    return tuple(grants)
