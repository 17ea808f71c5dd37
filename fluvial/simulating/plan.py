"""What is to be simulated: the crowd, how it trains, and when it is enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aggregation.codecs import DEFAULT_CODEC
from aggregation.errors import UsageProblem
from fluvial.local.policies import BUFFER_UPDATES_MAX, control_policy, layered_policy
from fluvial.session.aim import NO_AIM, Aim
from fluvial.session.engine import TICK_S
from fluvial.session.simulation import ONE_REGION
from fluvial.simulating.crowd import AT_ONCE
from fluvial.simulating.population import Drawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.codecs import CodecName
    from aggregation.policy import Policy
    from fluvial.simulating.population import Population
    from learning import Task

VERSIONS: Final = 20
VERSIONS_TO_TARGET: Final = 1000
"""Where a target alone ends it, for it may never be reached."""
VERSIONS_MAX: Final = 1_000_000
UPDATES_MAX: Final = 1_000_000_000
SECONDS_MAX: Final = 300 * 86_400.0
"""Of the simulated clock: certificates of workers end after a year."""
PARAMETERS_MAX: Final = 100_000_000
TICKS_A_ROUND: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulation. UsageProblem FLV-6450 when a value is out of bounds.

    at_once: how many devices train at the same time. versions, updates, seconds (of the simulated clock), aim: the end,
    by whichever comes first. alpha: Dirichlet concentration of the split. evaluate_every: versions. synthetic:
    parameters of updates that nobody trained, 0 for a task that is trained. signed: whether devices sign.
    """

    population: Population = field(default_factory=Drawn)
    at_once: int = AT_ONCE
    versions: int = VERSIONS
    updates: int = UPDATES_MAX
    seconds: float = SECONDS_MAX
    aim: Aim = NO_AIM
    evaluate_every: int = 1
    regions: Mapping[str, int] = field(default_factory=lambda: ONE_REGION)
    alpha: float = 1.0
    seed: int = 0
    codec: CodecName = DEFAULT_CODEC
    round_s: float = 1.0
    synthetic: int = 0
    signed: bool = True

    def __post_init__(self) -> None:
        rules = {
            "at_once": (self.at_once >= 1, "1 or more"),
            "versions": (1 <= self.versions <= VERSIONS_MAX, f"1 to {VERSIONS_MAX}"),
            "updates": (1 <= self.updates <= UPDATES_MAX, f"1 to {UPDATES_MAX}"),
            "seconds": (0 < self.seconds <= SECONDS_MAX, f"above 0, at most {SECONDS_MAX:g}"),
            "evaluate_every": (1 <= self.evaluate_every <= VERSIONS_MAX, f"1 to {VERSIONS_MAX}"),
            "synthetic": (0 <= self.synthetic <= PARAMETERS_MAX, f"0 to {PARAMETERS_MAX}"),
        }
        for name, (holds, bound) in rules.items():
            if not holds:
                raise UsageProblem(
                    "FLV-6450",
                    f"simulation setting {name} = {getattr(self, name)!r} is out of bounds: it has to be {bound}",
                    hint="see `fluvial simulate --help`",
                )

    @property
    def tick_s(self) -> float:
        """How often workers and merger look, in seconds of the simulated clock."""
        return max(TICK_S, self.round_s / TICKS_A_ROUND)


def policy_for(plan: Plan, explicit: str, task: Task | None) -> Policy:
    """The policy (TOML) over the task file's over the quick defaults of a run of so many devices at once.

    Windows close at every tick, and the deadline is some rounds, so that both fit the length of a round.
    """
    together = min(plan.at_once, plan.population.devices)
    updates = max(1, min(BUFFER_UPDATES_MAX, together * 4 // 5))
    quick = f"[window]\nseconds_max = {plan.tick_s}\n\n[buffer]\nupdates = {updates}\n"
    deadline_s = max(10.0, 10.0 * plan.round_s)
    quick = f"{quick}seconds_max = {deadline_s}\n"
    if task is None:
        return layered_policy(explicit=explicit, task={}, defaults=quick)
    from learning.control import asks_for_control

    if asks_for_control(task.config.extra):
        quick += control_policy(plan.population.devices)
    return layered_policy(explicit=explicit, task=task.policy_overrides, defaults=quick)
