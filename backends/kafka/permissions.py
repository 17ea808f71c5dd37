"""Kafka's ACLs: giving each role of a task what ``schemas.access`` says, and taking it away again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from backends.kafka.admin import admin_client, asked
from backends.kafka.configuration import REQUEST_TIMEOUT_S
from backends.kafka.diagnosis import problem_at, require_no_refusal
from backends.settings import Settings
from schemas.access import Grant

ANY_HOST: Final = "*"
_OPERATIONS: Final = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
_KINDS: Final = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}

Principal = Callable[[Grant], str]
"""Who gets a grant: a principal of Kafka's, such as ``User:alice``."""


def permit(settings: Settings, grants: Iterable[Grant], principal: Principal) -> int:
    """Let every grant hold; how many permissions that are. One that is there already stays.

    AccessProblem FLV-3117 where we do not administer the cluster.
    """
    wanted = _distinct(grants, principal)
    admin = admin_client(settings)  # which ends what it was asked where it is let go
    if wanted:
        require_no_refusal(settings)
        for created in asked(admin.create_acls(wanted, request_timeout=REQUEST_TIMEOUT_S)).values():
            _result(created, "make permissions (ACLs)", settings)
    return len(wanted)


def forbid(settings: Settings, grants: Iterable[Grant], principal: Principal) -> int:
    """Take grants away again; how many permissions were there.

    AccessProblem FLV-3117 where we do not administer the cluster.
    """
    filters = [_filter(one) for one in _distinct(grants, principal)]
    if not filters:
        return 0
    admin = admin_client(settings)
    require_no_refusal(settings)
    deleted = asked(admin.delete_acls(filters, request_timeout=REQUEST_TIMEOUT_S)).values()
    return sum(len(_result(one, "take permissions (ACLs) away", settings)) for one in deleted)


def _distinct(grants: Iterable[Grant], principal: Principal) -> list[AclBinding]:
    """Where one principal has a role in several regions, it needs some of it once."""
    return list(dict.fromkeys(one for grant in grants for one in _bindings(grant, principal(grant))))


def _bindings(grant: Grant, principal: str) -> list[AclBinding]:
    pattern = ResourcePatternType.PREFIXED if grant.is_prefix else ResourcePatternType.LITERAL
    return [
        AclBinding(
            _KINDS[grant.kind],
            grant.name,
            pattern,
            principal,
            ANY_HOST,
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for operation in grant.operations
    ]


def _filter(one: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        one.restype,
        one.name,
        one.resource_pattern_type,
        one.principal,
        one.host,
        one.operation,
        one.permission_type,
    )


def _result(future: object, action: str, settings: Settings) -> list[AclBinding]:
    try:
        return list(future.result(REQUEST_TIMEOUT_S) or ())  # type: ignore[attr-defined]
    except KafkaException as error:
        found: KafkaError = error.args[0]
        raise problem_at(found, action, settings) from error
