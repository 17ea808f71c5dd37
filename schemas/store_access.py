"""Who needs what of the object store, by role: the least with which a task runs, by the keys of ``schemas.objects``.

Beside ``schemas.access``, which says it of Kafka, and for the same roles. Nobody but who creates and removes tasks may
delete, and no key leads into another task. What is content-addressed lies under its hash whoever made it, so that a
region's workers cannot be kept from each other's: every reader compares the hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.access import ROLES, AccessRole

StoreOperation = Literal["Get", "Put", "List"]
ACTIONS: Final[dict[StoreOperation, tuple[str, ...]]] = {
    "Get": ("s3:GetObject",),
    "Put": ("s3:PutObject", "s3:AbortMultipartUpload"),
    "List": ("s3:ListBucket",),
}
"""What S3 calls it. A create is a Put: that it is conditional is said in the request."""
POLICY_VERSION: Final = "2012-10-17"

_OBJECTS: Final = "objects/*"
_VERSIONS: Final = "versions/*"
_MANIFESTS: Final = "versions/*/manifest.json"


@dataclass(frozen=True, slots=True)
class StoreGrant:
    """One permission: what a role may do with all objects whose keys fit ``pattern``, in which ``*`` is any text."""

    role: AccessRole
    operation: StoreOperation
    pattern: str


def store_access_of(task: str, *, guided: bool = False) -> tuple[StoreGrant, ...]:
    """Every permission of a task in its store. ``guided``: its policy is, so that it has guardians.

    All may list the task's keys. S3 does not tell who may not whether an object is missing or forbidden.
    """
    may: dict[AccessRole, tuple[tuple[str, ...], tuple[str, ...]]] = {
        # role: what it reads, what it writes
        "device": ((_OBJECTS, _VERSIONS), ()),
        "worker": ((_OBJECTS, _MANIFESTS), (_OBJECTS,)),
        "merger": ((_OBJECTS, _VERSIONS), (_OBJECTS, _VERSIONS)),
        "evaluator": ((_OBJECTS, _VERSIONS), ()),
        "guardian": ((_OBJECTS, _VERSIONS), (_OBJECTS,)),
        "operator": ((_OBJECTS, _VERSIONS), ()),
        "reader": ((_OBJECTS, _VERSIONS), ()),
    }
    grants: list[StoreGrant] = []
    for role in ROLES:
        if role == "guardian" and not guided:
            continue
        reads, writes = may[role]
        grants += [StoreGrant(role, "Get", f"{task}/{pattern}") for pattern in reads]
        grants += [StoreGrant(role, "Put", f"{task}/{pattern}") for pattern in writes]
        grants.append(StoreGrant(role, "List", f"{task}/*"))
    return tuple(grants)


def policy_name(task: str, role: AccessRole) -> str:
    """How a role's policy of a task is called where the local stack keeps it; roles have no dash."""
    return f"fluvial-{task}-{role}"


def policies_of(bucket: str, grants: tuple[StoreGrant, ...]) -> dict[AccessRole, dict[str, Any]]:
    """The grants as S3's policy documents, one for each role that has any."""
    roles = [role for role in ROLES if any(grant.role == role for grant in grants)]
    return {role: _policy(bucket, [grant for grant in grants if grant.role == role]) for role in roles}


def _policy(bucket: str, grants: list[StoreGrant]) -> dict[str, Any]:
    patterns: dict[StoreOperation, list[str]] = {}
    for grant in grants:
        patterns.setdefault(grant.operation, []).append(grant.pattern)
    return {
        "Version": POLICY_VERSION,
        "Statement": [_statement(bucket, operation, some) for operation, some in patterns.items()],
    }


def _statement(bucket: str, operation: StoreOperation, patterns: list[str]) -> dict[str, Any]:
    said: dict[str, Any] = {"Effect": "Allow", "Action": list(ACTIONS[operation])}
    if operation == "List":  # of the bucket, as far as the prefix that is asked for
        condition = {"StringLike": {"s3:prefix": patterns}}
        return said | {"Resource": [f"arn:aws:s3:::{bucket}"], "Condition": condition}
    return said | {"Resource": [f"arn:aws:s3:::{bucket}/{pattern}" for pattern in patterns]}
