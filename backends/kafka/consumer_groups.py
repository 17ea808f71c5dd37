"""Who has joined a consumer group: what Kafka says about the workers of a region."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from aggregation.errors import ConnectionProblem
from backends.kafka.admin import admin_client, asked
from backends.settings import Settings

REQUEST_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = REQUEST_TIMEOUT_S + 10.0
"""The request ends first, with an error of its own; on a busy machine the answer may reach us late."""
COORDINATOR_POLL_S: Final = 0.1
_MOVING: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
_ABSENT: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID})


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a group: its client id, the machine it speaks from, the partitions that it was given.

    ``name`` is that of a static member (see ``backends.kafka.faust.static_membership``), "" for one without.
    """

    client_id: str
    host: str
    partitions: tuple[int, ...]
    name: str = ""

    @property
    def called(self) -> str:
        """What people call it: its name, else what its client library says of itself."""
        return self.name or self.client_id


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group; ``state`` is Kafka's word in lower case, ``absent`` when nobody has ever joined."""

    name: str
    state: str
    members: tuple[Member, ...]


def describe_groups(settings: Settings, names: list[str]) -> list[Group]:
    """The groups by name, in the given order; one that does not exist has no members. ConnectionProblem FLV-3100."""
    if not names:
        return []
    admin = admin_client(settings)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        described = asked(admin.describe_consumer_groups(names, request_timeout=REQUEST_TIMEOUT_S))
        # A broker that was just started has no coordinator for a moment.
        if time.monotonic() > deadline or not any(_is_moving(future) for future in described.values()):
            return [_group(name, described[name], settings.bootstrap_servers) for name in names]
        time.sleep(COORDINATOR_POLL_S)


def _is_moving(future: Any) -> bool:
    error = future.exception(timeout=ANSWER_TIMEOUT_S)
    return isinstance(error, KafkaException) and error.args[0].code() in _MOVING


def _group(name: str, future: Any, bootstrap: str) -> Group:
    try:
        found = future.result(timeout=ANSWER_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() in _ABSENT:
            return Group(name, "absent", ())
        raise ConnectionProblem(
            "FLV-3100",
            f"cannot describe the consumer group {name}: {error.args[0].str()}",
            where=f"broker {bootstrap}",
            hint="see whether the broker runs with `fluvial doctor`, or start it with `fluvial up`",
        ) from error
    members = tuple(
        Member(
            member.client_id,
            member.host,
            tuple(sorted(tp.partition for tp in member.assignment.topic_partitions))
            if member.assignment
            else (),
            member.group_instance_id or "",
        )
        for member in found.members
    )
    state = found.state.name.lower()
    return Group(name, "absent" if state == "dead" else state, members)
