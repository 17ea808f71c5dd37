"""Declaring topics, and asking whether a broker answers."""

from __future__ import annotations

import atexit
import concurrent.futures
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from aggregation.errors import ConnectionProblem, TimeoutProblem, UsageProblem
from backends.kafka.configuration import REQUEST_TIMEOUT_S, connection
from backends.kafka.diagnosis import problem_at, require_no_refusal
from backends.kafka.durability import IN_SYNC, least_in_sync, replicas_of
from backends.settings import Settings
from schemas.topics import Topic

UNANSWERED_S_MAX: Final = REQUEST_TIMEOUT_S + 1.0
"""An ending process waits so long at most for what it has asked; what is asked has timed out by then."""

Asked = TypeVar("Asked")
_unanswered: Final[weakref.WeakSet[concurrent.futures.Future[Any]]] = weakref.WeakSet()


def asked(futures: Mapping[Asked, Any]) -> Mapping[Asked, Any]:
    """What an ``AdminClient`` was asked, and the process may not end before it is answered or has timed out.

    librdkafka hands an answer in on a thread of its own, which takes the interpreter's lock: of an interpreter that is
    gone, and the process ends with a segmentation fault where it should have ended well.
    """
    _unanswered.update(futures.values())
    return futures


@atexit.register
def _await_answers() -> None:
    concurrent.futures.wait(list(_unanswered), UNANSWERED_S_MAX)


def admin_client(settings: Settings) -> AdminClient:
    """A client for what is not reading or writing."""
    return AdminClient(connection(settings))


def declare_topics(settings: Settings, topics: Iterable[Topic]) -> list[str]:
    """Create the topics that are missing; returns their names. UsageProblem (FLV-3104) when one exists otherwise."""
    require_no_refusal(settings)
    admin = admin_client(settings)
    wanted = {topic.name: topic for topic in topics}
    try:
        present = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        raise problem_at(error.args[0], "list topics", settings) from error
    for name in sorted(wanted.keys() & present.keys()):
        if len(present[name].partitions) != wanted[name].partitions:
            raise UsageProblem(
                "FLV-3104",
                f"topic {name} has {len(present[name].partitions)} partitions, "
                f"the task wants {wanted[name].partitions}",
                hint="choose another task name, or delete the topic",
            )
    missing = [
        NewTopic(
            name,
            num_partitions=wanted[name].partitions,
            replication_factor=-1,
            config=wanted[name].config(settings.message_bytes_max),
        )
        for name in sorted(wanted.keys() - present.keys())
    ]
    if missing:
        for name, created in asked(admin.create_topics(missing, request_timeout=REQUEST_TIMEOUT_S)).items():
            try:
                created.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise problem_at(error.args[0], f"create topic {name}", settings) from error
        _await_leaders(admin, {topic.topic for topic in missing}, settings.bootstrap_servers)
        _acknowledge_by_two(admin, [topic.topic for topic in missing], settings)
    return [topic.topic for topic in missing]


def delete_topics(settings: Settings, names: Iterable[str]) -> list[str]:
    """Delete the topics that exist, with all their records; their names. Waits until the broker lists none of them."""
    require_no_refusal(settings)
    admin = admin_client(settings)
    try:
        present = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        there = sorted(present.keys() & set(names))
        if there:
            for name, deleted in asked(admin.delete_topics(there, request_timeout=REQUEST_TIMEOUT_S)).items():
                try:
                    deleted.result()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise problem_at(error.args[0], f"delete topic {name}", settings) from error
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics.keys() & set(there):
            if time.monotonic() > deadline:
                break  # it is deleting them: a task of this name that comes too soon is refused
            time.sleep(0.1)
    except KafkaException as error:
        raise problem_at(error.args[0], "list topics", settings) from error
    return there


class BrokerProbe:
    """Asks the broker, as often as wanted over one connection, whether it answers."""

    def __init__(self, settings: Settings) -> None:
        self._admin = admin_client(settings)

    def answers(self, timeout_s: float = 3.0) -> bool:
        """Whether a broker answers within ``timeout_s``."""
        try:
            answer = self._admin.describe_cluster(request_timeout=timeout_s)
            _unanswered.add(answer)
            answer.result(timeout_s + 1.0)
        except (KafkaException, TimeoutError):
            return False
        return True


def require_broker(settings: Settings, timeout_s: float = 3.0) -> None:
    """Unless a broker answers: ConnectionProblem FLV-3100; AccessProblem FLV-3110 to FLV-3118, it refuses us."""
    require_no_refusal(settings, timeout_s)
    if not reachable(settings, timeout_s):
        raise ConnectionProblem(
            "FLV-3100",
            "no broker answers",
            where=f"broker {settings.bootstrap_servers}",
            hint="see whether the broker runs with `fluvial doctor`, or start it with `fluvial up`",
        )


def reachable(settings: Settings, timeout_s: float = 3.0) -> bool:
    """Whether a broker answers."""
    return BrokerProbe(settings).answers(timeout_s)


def _acknowledge_by_two(admin: AdminClient, names: Iterable[str], settings: Settings) -> None:
    """Of topics that have just been made with copies enough: how many there are is the broker's default."""
    topics = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    entry = ConfigEntry(IN_SYNC, "2", incremental_operation=AlterConfigOpType.SET)
    wanted = [
        ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        for name in names
        if least_in_sync(replicas_of(topics.get(name))) > 1
    ]
    answers = admin.incremental_alter_configs(wanted, request_timeout=REQUEST_TIMEOUT_S) if wanted else {}
    for resource, altered in asked(answers).items():
        try:
            altered.result()
        except KafkaException as error:
            raise problem_at(error.args[0], f"set {IN_SYNC} of {resource.name}", settings) from error


def _await_leaders(admin: AdminClient, names: set[str], bootstrap: str) -> None:
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        if all(
            name in topics and all(p.leader >= 0 for p in topics[name].partitions.values()) for name in names
        ):
            return
        time.sleep(0.05)
    raise TimeoutProblem(
        "FLV-3102", f"new topics got no leader from {bootstrap} within {REQUEST_TIMEOUT_S:g} s"
    )
