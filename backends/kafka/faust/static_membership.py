"""A worker's place in its region's group, held under its name (static membership, KIP-345).

A process that comes back under its name within the session timeout gets its partitions back at once, and the others
do not notice. aiokafka joins under a name, but leaves out two things that belong to it:

- Its heartbeats and commits do not say the name. A process whose name another has taken is told that it is unknown,
  joins again, and throws the other out in its turn, for ever and in silence. With the name, the broker says
  ``FENCED_INSTANCE_ID``, and the process ends.
- It never leaves. After a clean stop the partitions would wait for the session timeout as after a crash (ADR 7).

``install`` puts ``NamedCoordinator`` into aiokafka's consumer, for the whole process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiokafka.consumer import consumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError, RebalanceInProgressError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

from aggregation.errors import UsageProblem
from backends.kafka.refusals import GROUP_DENIED, TOPIC_DENIED

FENCED_INSTANCE_ID: Final = 82
NO_LEADER_EPOCH: Final = -1

log = logging.getLogger("fluvial")


class NamedHeartbeatResponseV3(Response):  # type: ignore[misc]
    """As version 1, which aiokafka knows."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class NamedHeartbeatRequestV3(RequestStruct):  # type: ignore[misc]
    """The first version that says the member's name."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = NamedHeartbeatResponseV3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class NamedHeartbeat(Request[NamedHeartbeatRequestV3]):  # type: ignore[misc]
    """A heartbeat that says the member's name."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member_id: str, name: str) -> None:
        self._fields = (group, generation, member_id, name)

    def build(self, request_struct_class: type[NamedHeartbeatRequestV3]) -> NamedHeartbeatRequestV3:
        """The record on the wire."""
        return request_struct_class(*self._fields)


class NamedCommitResponseV7(Response):  # type: ignore[misc]
    """As version 3, which aiokafka knows."""

    API_KEY = 8
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    )


class NamedCommitRequestV7(RequestStruct):  # type: ignore[misc]
    """The first version that says the member's name."""

    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = NamedCommitResponseV7
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class NamedCommit(Request[NamedCommitRequestV7]):  # type: ignore[misc]
    """A commit that says the member's name, made from aiokafka's, which does not."""

    API_KEY = 8

    def __init__(self, plain: OffsetCommitRequest, name: str) -> None:
        self._plain = plain
        self._name = name

    def build(self, request_struct_class: type[NamedCommitRequestV7]) -> NamedCommitRequestV7:
        """The record on the wire."""
        plain = self._plain
        topics = [
            (topic, [(partition, offset, NO_LEADER_EPOCH, text) for partition, offset, text in partitions])
            for topic, partitions in plain._topics  # noqa: SLF001
        ]
        return request_struct_class(
            plain._consumer_group,  # noqa: SLF001
            plain._consumer_group_generation_id,  # noqa: SLF001
            plain._consumer_id,  # noqa: SLF001
            self._name,
            topics,
        )


class NamedCoordinator(GroupCoordinator):  # type: ignore[misc]
    """aiokafka's coordinator, for members with and without a name."""

    on_fenced: Callable[[], None] | None = None
    """Called once, when another process has joined under our name. From then on nothing asks for the place again."""
    on_denied: Callable[[KafkaError], None] | None = None
    """Called when the group is not permitted to us: nothing else would say so."""
    _fenced = False

    def _push_error_to_user(self, exc: KafkaError) -> Any:
        if exc.errno in {GROUP_DENIED, TOPIC_DENIED} and self.on_denied is not None:
            self.on_denied(exc)
        return super()._push_error_to_user(exc)

    async def _send_req(self, request: Any) -> Any:
        if self._group_instance_id is None:
            return await super()._send_req(request)
        if isinstance(request, OffsetCommitRequest):
            return await self._send_commit(request)
        if not isinstance(request, (HeartbeatRequest, JoinGroupRequest, SyncGroupRequest)):
            return await super()._send_req(request)
        if self._fenced:
            await self._until_closed()
        if isinstance(request, HeartbeatRequest):
            request = NamedHeartbeat(self.group_id, self.generation, self.member_id, self._group_instance_id)
        response = await super()._send_req(request)
        if response.error_code == FENCED_INSTANCE_ID:
            self._be_fenced()
            await self._until_closed()
        return response

    async def _send_commit(self, request: OffsetCommitRequest) -> Any:
        """Commits are advice, and the last one comes before the group is left: a fenced one fails at once."""
        if self.generation > 0 and not self._fenced:
            response = await super()._send_req(NamedCommit(request, self._group_instance_id))
            codes = {code for _, partitions in response.topics for _, code in partitions}
            if FENCED_INSTANCE_ID not in codes:
                return response
            self._be_fenced()
        # While we have no place in the group, no commit may ask for one, nor be told that our old one was taken.
        raise RebalanceInProgressError(self.group_id)

    def _be_fenced(self) -> None:
        if not self._fenced:
            self._fenced = True
            if self.on_fenced is not None:
                self.on_fenced()

    async def _until_closed(self) -> None:
        await asyncio.shield(self._closing)
        raise KafkaError("another member has this name")

    async def _maybe_leave_group(self) -> None:
        if self.generation > 0 and self._group_instance_id is not None and not self._fenced:
            try:
                await self._send_req(LeaveGroupRequest(self.group_id, self.member_id))
            except KafkaError as error:
                log.info("could not tell the group that this process leaves: %s", error)
        await super()._maybe_leave_group()


def install() -> None:
    """Let aiokafka's consumers in this process coordinate by ``NamedCoordinator``. Calling it again changes nothing."""
    consumer.GroupCoordinator = NamedCoordinator


def name_taken(group: str, name: str) -> UsageProblem:
    """FLV-3210: another process of the group goes by our name now."""
    return UsageProblem(
        "FLV-3210",
        f"another process has joined as {name!r}, which is this one's name, and has its partitions now",
        where=f"group {group}",
        hint="if both are meant to run, give each a name of its own with `fluvial worker --name NAME`; "
        "if this one was replaced while it was paused or cut off, leave it ended",
    )
