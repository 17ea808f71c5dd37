"""The defences of the arena: the real fold under policies of its own, and the papers' rules as naive twins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from aggregation.merges import MERGES
from aggregation.policy import policy_from_mapping
from fluvial.arena.fold_defence import FoldDefence
from fluvial.arena.twin_defence import TwinDefence
from fluvial.arena.twins import TWINS

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from fluvial.arena.play import Defence
    from fluvial.arena.world import World

BUCKETS: Final = 16
"""Of a version of twenty updates: one or two in each, and some empty."""
POLICIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "undefended": {
        "shares": {"per_version": 0},
        "defence": {"kind": "none", "quarantine_refusals": 0},
    },
    "peers": {"defence": {"kind": "peers"}},
    "median": {"defence": {"kind": "median"}},
    "guide": {"defence": {"kind": "guide"}, "server": {"divide_by": "weights"}},
    **{
        f"buckets-{name.replace('_', '-')}": {"merge": {"kind": name, "buckets": BUCKETS}}
        for name, merge in MERGES.items()
        if merge.robust
    },
}
"""What the real fold is told beside the task's own policy; ``undefended`` is what all else is compared with."""
UNDEFENDED: Final = "undefended"
OF_THE_POLICY: Final = "policy"
"""The name of a policy file's defence in the table."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One column of the table. ``identity`` is all that it depends on beside the code: it goes into the cache's key."""

    name: str
    identity: str
    make: Callable[[World, int], Defence]

    @property
    def real(self) -> bool:
        """Whether it is the fold's own."""
        return self.name in POLICIES


def policy_of(world: World, sections: Mapping[str, Any]) -> Policy:
    """A task's policy in the arena: the shipped task's clip and rate under ``sections``."""
    base: dict[str, dict[str, Any]] = {
        "updates": {"norm_clip": world.norm_clip},
        "server": {"learning_rate": world.server_rate},
    }
    for name, section in sections.items():
        base[name] = base.get(name, {}) | dict(section)
    return policy_from_mapping(base)


def contender(name: str) -> Contender:
    """The defence of this name. UsageProblem FLV-6440 where there is none."""
    if name in POLICIES:
        sections = POLICIES[name]
        return Contender(
            name, repr(sections), lambda world, _seed: FoldDefence(world, policy_of(world, sections))
        )
    if name in TWINS:
        twin = TWINS[name]
        return Contender(name, "twin", lambda world, seed: TwinDefence(world, twin(), seed))
    raise UsageProblem(
        "FLV-6440",
        f"--defences: there is no defence {name!r}",
        hint=f"choose of {', '.join(names())}",
    )


def names() -> list[str]:
    """Every defence, the real ones first."""
    return [*POLICIES, *TWINS]
