"""How the parts of a run get into its Kafka: as anybody, by the certificates of their roles, or by users and passwords.

Each listener of the broker, those behind proxies too, asks for the same. Whoever only looks (progress, check, audit)
goes in as a reader.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from backends.environment import load_settings
from backends.kafka.permissions import permit
from backends.kafka.users import make_users
from backends.settings import ADMIN, KafkaSecurity
from fluvial.local import ports
from fluvial.local.kafka import Listener
from fluvial.local.stack_access import forbid_task, permit_task
from fluvial.proof.chaos.plan import PLAIN
from schemas.access import ROLES, access_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from backends.settings import Settings, StackRole
    from fluvial.proof.chaos.links import Link
    from fluvial.proof.chaos.plan import Security
    from schemas.access import AccessRole

PASSWORD_BYTES: Final = 24
_OBSERVERS: Final = "OBSERVERS"
_LOGIN: Final = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class WaysIn:
    """One run's. For SCRAM it chooses a port, and a password for each role's user, which has the role's name."""

    def __init__(self, security: Security, links: Sequence[Link]) -> None:
        """For a broker with these ``links``. EnvironmentProblem FLV-1013: no port is free."""
        self.security = security
        self._links = links
        self._passwords: dict[str, str] = {}
        if security == "scram":
            taken = {
                port for link in links for port in (link.listener_port, link.broker_port, link.store_port)
            }
            self._port = ports.choose(avoid=frozenset(taken))
            self._passwords = {role: secrets.token_urlsafe(PASSWORD_BYTES) for role in ROLES}

    @property
    def has_tls(self) -> bool:
        """Whether the stack has a CA, certificates and ACLs."""
        return self.security != PLAIN

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The broker's listeners, beside that of its administrator."""
        behind = [link.listener for link in self._links]
        if self.security != "scram":
            return tuple(behind)
        own = Listener(_OBSERVERS, self._port, self._port)
        return tuple(
            dataclasses.replace(one, protocol="SASL_SSL", properties=_scram(one.name))
            for one in (own, *behind)
        )

    def settings(self, home: Path, role: AccessRole) -> Settings:
        """How a role reaches the run's stack in ``home``, through no proxy."""
        settings = load_settings(home, {}, role=role)
        if self.security != "scram":
            return settings
        return msgspec.structs.replace(
            settings,
            bootstrap_servers=f"{ports.LOOPBACK}:{self._port}",
            kafka=KafkaSecurity(
                security_protocol="SASL_SSL",
                ca_file=settings.kafka.ca_file,
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username=role,
                sasl_password=self._passwords[role],
            ),
        )

    def admit(self, admin: Settings, task: str, regions: Mapping[str, int], *, guided: bool) -> None:
        """Make the users, and give each what a role of the task needs. Certificates have got theirs with the task.

        AccessProblem, ConnectionProblem, TimeoutProblem: what Kafka raises.
        """
        if self.security != "scram":
            return
        make_users(admin, self._passwords)
        permit(admin, access_of(task, regions, guided=guided), lambda grant: f"User:{grant.role}")


class GivenWays:
    """Those of a cluster that is there: as each role reaches it from here."""

    def __init__(self, of: Callable[[StackRole], Settings]) -> None:
        """``of``: the settings of each role."""
        self._of = of

    def settings(self, home: Path, role: StackRole) -> Settings:
        """The same for a process whose folder of local state is ``home``."""
        return msgspec.structs.replace(self._of(role), home=home)

    def admit(self, _admin: Settings, task: str, regions: Mapping[str, int], *, guided: bool) -> None:
        """Give the roles of a local stack what they need of the task; elsewhere its administrator has done so."""
        permit_task(self._of(ADMIN), task, regions, guided=guided)

    def dismiss(self, task: str, regions: Mapping[str, int], *, guided: bool) -> None:
        """Take it away again."""
        forbid_task(self._of(ADMIN), task, regions, guided=guided)


def _scram(listener: str) -> tuple[str, ...]:
    """What a listener needs to ask for a user and a password instead of a certificate."""
    name = f"listener.name.{listener.lower()}"
    return (
        f"{name}.ssl.client.auth=none",
        f"{name}.sasl.enabled.mechanisms=SCRAM-SHA-512",
        f"{name}.scram-sha-512.sasl.jaas.config={_LOGIN}",
    )
