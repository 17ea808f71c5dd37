"""What a chaos run is asked to do, and what follows from that before anything is started."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from aggregation.defences import defence_named
from fluvial.local.policies import layered_policy, quick_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backends.settings import Settings, StackRole
    from fluvial.proof.chaos.schedule import Kind

Security = Literal["none", "tls", "scram"]
PLAIN: Final = "none"
SECURITIES: Final[tuple[Security, ...]] = (PLAIN, "tls", "scram")
"""``none``: plain text. ``tls``: mutual TLS, a certificate a role. ``scram``: SCRAM-SHA-512 over TLS, a user a role.

With both of the latter ACLs say who may do what.
"""
TASK: Final = "digits"
TOKEN_BYTES: Final = 4
DEADLINE_S: Final = 2.0
"""The policy's ``buffer.seconds_max``: with half of the devices cut off, versions are made of what there is."""


@dataclass(frozen=True, kw_only=True)
class ChaosPlan:
    """What to run. ``regions`` maps each region to its number of partitions; ``workers`` are per region.

    ``attackers`` are among the ``devices``. ``policy_text`` (TOML) goes before the task file's POLICY, and that before
    ``defence``, the kind of the policy's defence, "" for the default one. ``cluster``: how each role reaches a cluster
    that is there; None for one of its own, which has ``security``.
    """

    seconds: float
    seed: int
    kinds: tuple[Kind, ...]
    devices: int
    regions: Mapping[str, int]
    workers: int
    attackers: int = 0
    policy_text: str = ""
    defence: str = ""
    security: Security = "none"
    cluster: Callable[[StackRole], Settings] | None = None
    keep: bool = False

    @cached_property
    def task(self) -> str:
        """The name of its task, which no other has on a cluster that is there."""
        return TASK if self.cluster is None else f"chaos-{secrets.token_hex(TOKEN_BYTES)}"

    @property
    def policy_defaults(self) -> str:
        """The policy (TOML) where neither ``policy_text`` nor the task file says anything."""
        quick = quick_policy(self.devices - self.attackers) + f"seconds_max = {DEADLINE_S}\n"
        return quick + (f'\n[defence]\nkind = "{self.defence}"\n' if self.defence else "")

    @cached_property
    def is_guided(self) -> bool:
        """Whether the policy takes guides, so that guardians run. UsageProblem FLV-2001 to 2003: it is none."""
        from learning.task import load_task

        policy = layered_policy(
            explicit=self.policy_text,
            task=load_task(TASK).policy_overrides,
            defaults=self.policy_defaults,
        )
        return defence_named(policy.defence.kind).guided
