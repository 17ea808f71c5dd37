"""What each role of a task may do in Kafka and in the store, written for who administers them.

Kafka's own tool, Strimzi, and the policy documents of S3.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, get_args

from aggregation.errors import UsageProblem
from schemas.access import OF_A_REGION, ROLES, AccessRole, Grant, access_of
from schemas.store_access import policies_of, policy_name, store_access_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OF_ONE_REGION: Final = "User:CN={role},OU={role},O={region}"
OF_NO_REGION: Final = "User:CN={role},OU={role},O=control"
"""The subjects of certificates that carry region and role (RFC 2253): who is called ``admin`` is no administrator."""
CONFIG: Final = "admin.properties"

Principals = Mapping[AccessRole, str]
"""Who has a role: a principal of Kafka's, in which ``{task}``, ``{role}`` and ``{region}`` stand for these."""


def parse_principals(given: Iterable[str]) -> dict[AccessRole, str]:
    """``ROLE=PRINCIPAL`` each. UsageProblem FLV-6001: there is no such role, or no principal."""
    found: dict[AccessRole, str] = {}
    for text in given:
        role, _, principal = text.partition("=")
        if role not in get_args(AccessRole) or ":" not in principal:
            raise UsageProblem(
                "FLV-6001",
                f"--principal {text!r}: expected ROLE=TYPE:NAME, with a role of {', '.join(ROLES)}",
                hint="`fluvial task acls --principal 'worker=User:worker-{region}'`",
            )
        found[role] = principal  # type: ignore[index] # it was looked up
    return found


def principal_of(task: str, grant: Grant, principals: Principals) -> str:
    """Who is meant by a grant's role and region, in a task."""
    default = OF_ONE_REGION if grant.role in OF_A_REGION else OF_NO_REGION
    pattern = principals.get(grant.role, default)
    return _filled(pattern, task, grant)


def _filled(pattern: str, task: str, grant: Grant) -> str:
    return pattern.replace("{role}", grant.role).replace("{region}", grant.region).replace("{task}", task)


@dataclass(frozen=True, slots=True)
class Permitted:
    """A task whose permissions are asked for. ``guided``: its policy is, so that it has guardians.

    ``heartbeats``: it has a topic of these.
    """

    task: str
    regions: Sequence[str]
    guided: bool = False
    heartbeats: bool = False

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Every permission of it."""
        regions = dict.fromkeys(self.regions, 1)
        return access_of(self.task, regions, guided=self.guided, heartbeats=self.heartbeats)


def by_principal(of: Permitted, principals: Principals) -> list[tuple[str, list[Grant]]]:
    """Every permission of a task, by who gets it."""

    def who(grant: Grant) -> str:
        return principal_of(of.task, grant, principals)

    grants = sorted(of.grants, key=who)
    return [(principal, list(some)) for principal, some in groupby(grants, who)]


def commands_of(of: Permitted, principals: Principals, bootstrap_servers: str) -> Iterator[str]:
    """A line of Kafka's own tool for each permission, to be run by an administrator."""
    for principal, grants in by_principal(of, principals):
        for grant in grants:
            words = [
                "kafka-acls.sh",
                "--bootstrap-server",
                bootstrap_servers,
                "--command-config",
                CONFIG,
                "--add",
            ]
            words += ["--allow-principal", principal]
            for operation in grant.operations:
                words += ["--operation", operation]
            words += [f"--{grant.kind}", grant.name]
            if grant.is_prefix:
                words += ["--resource-pattern-type", "prefixed"]
            yield shlex.join(words)


def strimzi_of(of: Permitted, principals: Principals, cluster: str) -> Iterator[dict[str, Any]]:
    """A KafkaUser of Strimzi's for each role and region: its operator issues the certificate and sets the ACLs."""
    for grants in _by_holder(of):
        role, region = grants[0].role, grants[0].region
        name = principals.get(role, "User:fluvial-{task}-{role}" + ("-{region}" if region else ""))
        name = _filled(name.partition(":")[2], of.task, grants[0])
        yield {
            "apiVersion": "kafka.strimzi.io/v1beta2",
            "kind": "KafkaUser",
            "metadata": {
                "name": name.replace("_", "-").removeprefix("CN="),
                "labels": {"strimzi.io/cluster": cluster},
            },
            "spec": {
                "authentication": {"type": "tls"},
                "authorization": {"type": "simple", "acls": [_strimzi(grant) for grant in grants]},
            },
        }


def _by_holder(of: Permitted) -> Iterator[list[Grant]]:
    def holder(grant: Grant) -> tuple[str, str]:
        return grant.role, grant.region

    for _, some in groupby(sorted(of.grants, key=holder), holder):
        yield list(some)


def _strimzi(grant: Grant) -> dict[str, Any]:
    return {
        "resource": {
            "type": grant.kind,
            "name": grant.name,
            "patternType": "prefix" if grant.is_prefix else "literal",
        },
        "operations": list(grant.operations),
        "host": "*",
    }


def minio_of(of: Permitted, bucket: str) -> dict[str, dict[str, Any]]:
    """S3's policy document for each role, by a name for it: MinIO takes it as it is, and so does AWS."""
    documents = policies_of(bucket, store_access_of(of.task, guided=of.guided))
    return {policy_name(of.task, role): document for role, document in documents.items()}


def yaml_of(documents: Iterable[dict[str, Any]]) -> str:
    """As YAML, of which JSON is a part."""
    return "".join(f"---\n{json.dumps(document, indent=2)}\n" for document in documents)
