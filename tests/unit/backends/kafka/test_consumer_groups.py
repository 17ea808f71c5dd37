"""What is read out of a broker's description of a group; the asking is tested on the real stack."""

from __future__ import annotations

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from backends.kafka.consumer_groups import Group, Member, _group

GIVEN = ConsumerProtocolMemberAssignment(0, [("updates", [3, 1]), ("others", [2])], b"").encode()


def described(assignment: bytes, *, state: str = "Stable", name: str | None = "worker-0") -> Group:
    member = ("id-1", name, "client", "/127.0.0.1", b"", assignment)
    return _group("workers", (0, "workers", state, "consumer", "range", [member], 0))


def test_a_member_has_its_name_and_its_partitions_in_order() -> None:
    assert described(GIVEN) == Group(
        "workers", "stable", (Member("client", "/127.0.0.1", (1, 2, 3), "worker-0"),)
    )
    assert described(GIVEN, name=None).members[0].called == "client"


@pytest.mark.parametrize(
    "assignment",
    [
        b"",
        GIVEN[:-9],
        b"\0\0\x7f\xff\xff\xff" + b"x" * 9,
        b"\0\0\0\0\0\1\0\2\xff\xfe\0\0\0\0",
        b"\0\0" + b"\xff" * 8,  # no list of topics
        b"\0\0\0\0\0\1\0\1u" + b"\xff" * 8,  # no list of partitions
    ],
)
def test_who_was_given_what_a_stranger_wrote_has_no_partitions(assignment: bytes) -> None:
    assert described(assignment).members[0].partitions == ()


@pytest.mark.parametrize(
    ("said", "state"),
    [("Dead", "absent"), ("Empty", "empty"), ("PreparingRebalance", "preparing_rebalancing")],
)
def test_states_are_said_as_they_were(said: str, state: str) -> None:
    assert described(b"", state=said).state == state
