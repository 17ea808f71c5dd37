"""Who has joined a consumer group: what Kafka says about the workers of a region.

Asked by aiokafka's client: librdkafka's own request for a group's description ends the process (a failed assertion in
its coordinator request) where an answer comes after the request has timed out, as on a busy machine.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from backends.kafka.configuration import REQUEST_TIMEOUT_S, client_options
from backends.kafka.diagnosis import refusal_async
from backends.kafka.problems import client_problem
from backends.settings import Settings

ANSWER_TIMEOUT_S: Final = 3 * REQUEST_TIMEOUT_S
"""To find a broker, the group's coordinator, and to be answered."""
COORDINATOR_POLL_S: Final = 0.1
_NO_ERROR: Final = 0
_MOVING: Final = frozenset({14, 15, 16})
"""COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR."""
_ABSENT: Final = frozenset({24, 69})
"""INVALID_GROUP_ID, GROUP_ID_NOT_FOUND."""
_STATES: Final = {
    "Dead": "absent",
    "PreparingRebalance": "preparing_rebalancing",
    "CompletingRebalance": "completing_rebalancing",
}
"""Kafka's words for which others are used here; its other words in lower case."""


class _DescribeGroupsResponseV4(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("group_instance_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _DescribeGroupsRequestV4(RequestStruct):  # type: ignore[misc]
    """The first version that is answered with members' names; aiokafka knows those before it."""

    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = _DescribeGroupsResponseV4
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _DescribeGroups(Request[_DescribeGroupsRequestV4]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_DescribeGroupsRequestV4]) -> _DescribeGroupsRequestV4:
        return request_struct_class([self._name], False)  # noqa: FBT003 - the fields of the wire


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
    """The groups by name, in the given order; one that does not exist has no members.

    ConnectionProblem FLV-3100, AccessProblem FLV-3110 to FLV-3118.

    Blocks, and has an event loop of its own: call it in a thread that has none.
    """
    return asyncio.run(_describe(settings, names)) if names else []


async def _describe(settings: Settings, names: list[str]) -> list[Group]:
    client = AIOKafkaClient(
        bootstrap_servers=settings.bootstrap_servers,
        **(
            client_options(settings, "fluvial-groups") | {"request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000)}
        ),
    )
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await client.bootstrap()
            return [await _described(client, name) for name in names]
    except (KafkaError, OSError, TimeoutError) as error:
        refused = await refusal_async(settings) if isinstance(error, KafkaConnectionError) else None
        action = f"describe the consumer groups {', '.join(names)}"
        raise refused or client_problem(error, action, settings.bootstrap_servers) from error
    finally:
        await client.close()


async def _described(client: AIOKafkaClient, name: str) -> Group:
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, name)
            (found,) = (await client.send(node, _DescribeGroups(name))).groups
        except KafkaError as error:
            code, found = error.errno, None
            if code not in _MOVING | _ABSENT:
                raise
        else:
            code = found[0]
        if code in _ABSENT:
            return Group(name, "absent", ())
        if found is not None and code == _NO_ERROR:
            return _group(name, found)
        # A broker that was just started has no coordinator for a moment.
        if code not in _MOVING or time.monotonic() > deadline:
            raise for_code(code)
        await asyncio.sleep(COORDINATOR_POLL_S)


def _group(name: str, found: tuple[Any, ...]) -> Group:
    _, _, said, _, _, members, _ = found
    return Group(name, _STATES.get(said, said.lower()), tuple(_member(*member) for member in members))


def _member(
    _member_id: str, name: str | None, client_id: str, host: str, _metadata: bytes, assignment: bytes
) -> Member:
    return Member(client_id, host, _partitions(assignment), name or "")


def _partitions(assignment: bytes) -> tuple[int, ...]:
    """What the group's leader gave a member; nothing while the group rebalances, or where a stranger leads it."""
    try:
        given = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
        return tuple(sorted(partition for _, numbers in given or () for partition in numbers or ()))
    except ValueError:
        return ()
