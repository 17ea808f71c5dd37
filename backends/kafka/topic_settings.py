"""Whether topics are set as our guarantees need it: who made a topic first, or changed it, may have set it otherwise.

With producers' timestamps an expired certificate signs on; with a retention the log that an audit reads is deleted
behind it; a compacted topic takes no record without a key; a leader that was behind cuts off what was acknowledged. So
whoever begins to work on a topic asks first: the command that creates a task, every worker and merger, and the doctor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, ResourceType

from aggregation.errors import UsageProblem
from backends.kafka.admin import admin_client, asked
from backends.kafka.configuration import REQUEST_TIMEOUT_S
from backends.kafka.diagnosis import problem_at, require_no_refusal
from backends.kafka.durability import IN_SYNC, UNCLEAN, least_in_sync, replicas_of
from backends.outages import retry_through_outage
from backends.settings import Settings
from schemas.topics import FOREVER_MS, Topic

TOPICS_TOLD: Final = 3
"""An error names so many topics, and says how many more there are."""
HIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})

_LOOKED_AT: Final = frozenset({UNCLEAN, IN_SYNC, *Topic(".updates.", (), "task", 1, FOREVER_MS).config(0)})

Differing = dict[str, tuple[str, str]]
"""What a topic has and should have, by the setting's name."""

log = logging.getLogger("fluvial")


def differing_settings(
    topic: str, values: Mapping[str, str], message_bytes_max: int, *, replicas: int = 1, fresh: bool = False
) -> Differing:
    """Where a topic's settings differ from what it has to have, in a way that matters. Of those that ``values`` has.

    With ``replicas`` copies enough to spare one, an acknowledged record has to stand in two; how many copies there are
    is the operator's choice. More than there are can never acknowledge anything.
    Larger messages do no harm, and how long metrics and heartbeats are kept is the operator's choice. That the broker
    unpacks what it stores is asked of a ``fresh`` task's topics only: older ones go without, and are read as well
    (ADR 27).
    """
    wanted = Topic(topic, (), "task", 1, FOREVER_MS).config(message_bytes_max)
    if not fresh:
        wanted.pop("compression.type", None)
    if topic.endswith((".metrics", ".heartbeats")):
        wanted = {name: value for name, value in wanted.items() if not name.startswith("retention.")}
    wanted[UNCLEAN] = "false"
    differing = {
        name: (values[name], value) for name, value in wanted.items() if values.get(name, value) != value
    }
    if int(values.get("max.message.bytes", 0)) >= message_bytes_max or ".updates." not in topic:
        differing.pop("max.message.bytes", None)
    least = least_in_sync(replicas)
    if not least <= int(values.get(IN_SYNC, least)) <= replicas:
        differing[IN_SYNC] = (values[IN_SYNC], str(least))
    return differing


@dataclass(frozen=True, slots=True)
class Compared:
    """Topics that ``differ``, and in what; and those whose settings are ``hidden`` from this client."""

    differ: Mapping[str, Differing]
    hidden: tuple[str, ...]


def compare_topics(
    admin: AdminClient, topics: Iterable[str], settings: Settings, *, fresh: bool = False
) -> Compared:
    """Look at those of the topics that are there. KafkaException where the broker does not say.

    A topic is hidden where the broker says none of its settings, or not all that matter.
    """
    present = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    differ: dict[str, Differing] = {}
    hidden = []
    described = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S) if resources else {}
    for resource, future in asked(described).items():
        try:
            values = shown_values(future.result())
        except KafkaException as error:
            if error.args[0].code() in HIDDEN:
                hidden.append(resource.name)
            elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            continue
        if not values.keys() >= _LOOKED_AT:
            hidden.append(resource.name)
        differing = differing_settings(
            resource.name,
            values,
            settings.message_bytes_max,
            replicas=replicas_of(present.get(resource.name)),
            fresh=fresh,
        )
        if differing:
            differ[resource.name] = differing
    return Compared(differ, tuple(sorted(hidden)))


def shown_values(entries: Mapping[str, ConfigEntry]) -> dict[str, str]:
    """The settings that a broker shows: of one that it hides, it gives the name alone."""
    return {name: str(entry.value) for name, entry in entries.items() if entry.value is not None}


def require_right_topics(settings: Settings, topics: Iterable[str], *, fresh: bool = False) -> None:
    """UsageProblem FLV-3106 where a topic that is there differs from what it has to be. Nothing is changed.

    ``fresh``: of a task that is being created. What is hidden from this client is a warning: somebody else may look.
    """
    require_no_refusal(settings)
    try:
        compared = compare_topics(admin_client(settings), topics, settings, fresh=fresh)
    except KafkaException as error:
        raise problem_at(error.args[0], "ask for the topics' settings", settings) from error
    if compared.hidden:
        log.warning(
            "may not see the settings of %s (no DescribeConfigs): `fluvial doctor` of somebody who may compares them",
            ", ".join(compared.hidden),
        )
    if compared.differ:
        raise UsageProblem(
            "FLV-3106",
            f"{in_words(compared.differ)}: what a task rests on does not hold there",
            where=f"broker {settings.bootstrap_servers}",
            hint="`fluvial doctor` prints the command that sets a topic right; what was deleted or misdated before "
            "stays so, and a task on other topics is `fluvial task create TASK --name NAME`",
        )


def await_right_topics(settings: Settings, topics: Iterable[str]) -> None:
    """As ``require_right_topics``, for a process that waits while no broker answers."""
    retry_through_outage("ask for the topics' settings", lambda: require_right_topics(settings, topics))


def in_words(wrong: Mapping[str, Differing]) -> str:
    """Which topics have what instead of what."""
    told = [
        f"{topic} has {', '.join(f'{name}={had}, not {wanted}' for name, (had, wanted) in differing.items())}"
        for topic, differing in sorted(wrong.items())
    ]
    more = f" and {len(told) - TOPICS_TOLD} more" if len(told) > TOPICS_TOLD else ""
    return "; ".join(told[:TOPICS_TOLD]) + more
