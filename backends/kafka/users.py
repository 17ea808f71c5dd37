"""Users of a Kafka whose clients say who they are by SCRAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from backends.kafka.admin import admin_client, asked
from backends.kafka.configuration import REQUEST_TIMEOUT_S
from backends.kafka.diagnosis import problem_at, require_no_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.settings import Settings

SCRAM_ITERATIONS: Final = 4096
"""Kafka's least."""


def make_users(settings: Settings, passwords: Mapping[str, str]) -> None:
    """Let each user in by SCRAM-SHA-512 with its password; one that is there already has this password from now on.

    AccessProblem FLV-3117 where we do not administer the cluster; what Kafka raises when it is away.
    """
    require_no_refusal(settings)
    client = admin_client(settings)  # which ends what it was asked where it is let go
    users: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(
            name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS), password.encode()
        )
        for name, password in passwords.items()
    ]
    try:
        for made in asked(client.alter_user_scram_credentials(users)).values():
            made.result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise problem_at(error.args[0], "make users", settings) from error
