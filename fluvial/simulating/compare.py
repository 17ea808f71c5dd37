"""Policies side by side: each trains on the same seeds, devices, data splits and delays, and its curves are kept."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from fluvial.reading.quality import in_digits
from fluvial.simulating.curve import row_of
from fluvial.simulating.plan import policy_for
from fluvial.simulating.simulator import simulate_crowd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aggregation.policy import Policy
    from fluvial.simulating.ledger import Ledger, Point
    from fluvial.simulating.plan import Plan
    from fluvial.simulating.simulator import Outcome
    from fluvial.simulating.training import Trainers
    from learning import Task
    from producers.fleet.failures import FailedRound

COMPARED_MAX: Final = 6
"""So many policies have a colour of their own."""
SEEDS_MAX: Final = 100
AXES: Final = {
    "version": "versions",
    "updates": "updates",
    "bytes_up": "bytes up",
    "seconds": "virtual seconds",
    "device_seconds": "client work, device seconds",
}
"""Fields of a point that curves are drawn against, with what they are."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy by the name of its file."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """One policy under one seed. ``target``: the first point that reached it; None where none did, or there is none."""

    seed: int
    outcome: Outcome
    target: Point | None

    @property
    def last(self) -> float | None:
        """The metric's last value."""
        curve = self.outcome.quality.curve()
        return curve[-1][1] if curve else None

    @property
    def end(self) -> Point:
        """Where the run is measured: at its target, else where it ended."""
        return self.target or self.outcome.points[-1]


@dataclass(frozen=True, slots=True)
class Compared:
    """All runs of one policy."""

    name: str
    policy: Policy
    runs: tuple[Run, ...]

    @property
    def metric(self) -> str:
        """What judges it."""
        return self.runs[0].outcome.quality.name

    @property
    def reached(self) -> int:
        """How many runs reached the target."""
        return sum(run.target is not None for run in self.runs)

    def mean(self, axis: str) -> float:
        """Of a field of ``Point``, over the seeds, at their ends."""
        return statistics.fmean(getattr(run.end, axis) for run in self.runs)

    def mean_last(self) -> float | None:
        """Of the metric's last value; None where no run has one."""
        values = [run.last for run in self.runs if run.last is not None]
        return statistics.fmean(values) if values else None


def contestants(texts: Sequence[tuple[Path, str]]) -> list[Contestant]:
    """Named by their files, which are numbered where two are called so. UsageProblem FLV-6450: too many, or too few."""
    if not 1 <= len(texts) <= COMPARED_MAX:
        raise UsageProblem(
            "FLV-6450",
            f"expected 1 to {COMPARED_MAX} policies to compare, got {len(texts)}",
            hint="`fluvial compare A.toml B.toml`",
        )
    found: dict[str, Contestant] = {}
    for path, text in texts:
        name, number = path.stem, 2
        while name in found:
            name, number = f"{path.stem}-{number}", number + 1
        found[name] = Contestant(name, text)
    return list(found.values())


def compare_all(
    chosen: Sequence[Contestant],
    plan: Plan,
    seeds: Sequence[int],
    *,
    task: Task,
    trainers: Trainers,
    on_run: Callable[[str, int], None],
    on_point: Callable[[Point, Ledger], None],
    on_failure: Callable[[FailedRound, bool], None],
) -> list[Compared]:
    """Every policy under every seed. ``on_run`` hears of each beginning. Raises what ``simulate_crowd`` does.

    All policies are read before anything is trained: FLV-2001 to FLV-2003.
    """
    policies = [(one, policy_for(plan, one.text, task)) for one in chosen]
    found = []
    for one, policy in policies:
        runs = []
        for seed in seeds:
            on_run(one.name, seed)
            outcome = simulate_crowd(
                _seeded(plan, seed),
                policy,
                task=task,
                trainers=trainers,
                on_point=on_point,
                on_failure=on_failure,
            )
            runs.append(Run(seed, outcome, _target_of(plan, outcome)))
        found.append(Compared(one.name, policy, tuple(runs)))
    return found


def _seeded(plan: Plan, seed: int) -> Plan:
    return replace(plan, seed=seed, population=plan.population.seeded(seed))


def _target_of(plan: Plan, outcome: Outcome) -> Point | None:
    reached = plan.aim.reached(outcome.quality)
    return None if reached is None else outcome.points[reached[0] - 1]


def ratios(found: Sequence[Compared], axis: str) -> list[float | None]:
    """How many times of what the first policy takes of ``axis`` each takes to the target; None where one missed it."""
    first = found[0]
    return [
        one.mean(axis) / first.mean(axis)
        if one.reached == len(one.runs) and first.reached == len(first.runs) and first.mean(axis) > 0
        else None
        for one in found
    ]


def columns_of(found: Sequence[Compared]) -> list[str]:
    """Of the table."""
    return ["policy", f"last {found[0].metric}", "at target", *AXES.values()]


def rows_of(found: Sequence[Compared], *, has_target: bool) -> list[list[str]]:
    """A row a policy: means over the seeds, at the target where there is one and all reached it, else at the end."""
    rows = []
    for one in found:
        last = one.mean_last()
        reached = f"{one.reached} of {len(one.runs)}" if has_target else "-"
        figures = [f"{one.mean(axis):,.0f}" for axis in AXES]
        rows.append([one.name, "-" if last is None else in_digits(last), reached, *figures])
    return rows


def in_words(found: Sequence[Compared]) -> list[str]:
    """A line for each policy but the first, where both have reached the target under every seed."""
    lines = []
    for one, work, seconds in zip(
        found, ratios(found, "device_seconds"), ratios(found, "seconds"), strict=True
    ):
        if one is not found[0] and work is not None and seconds is not None:
            lines.append(
                f"to the target {one.name} takes {work:.2f} times the client work of {found[0].name}, and "
                f"{seconds:.2f} times its virtual time"
            )
    return lines


def document(found: Sequence[Compared], plan: Plan, task: str) -> dict[str, Any]:
    """All of it as one JSON document."""
    return {
        "task": task,
        "devices": plan.population.devices,
        "at_once": plan.at_once,
        "alpha": plan.alpha,
        "target": plan.aim.in_words() or None,
        "first": found[0].name,
        "policies": [
            {
                "name": one.name,
                "policy_sha256": one.policy.sha256,
                "last": one.mean_last(),
                "reached": one.reached,
                "mean": {axis: one.mean(axis) for axis in AXES},
                "times_the_first": {axis: ratios(found, axis)[at] for axis in AXES},
                "runs": [
                    {
                        "seed": run.seed,
                        **run.outcome.document(),
                        "target": None if run.target is None else row_of(run.target),
                        "curve": [row_of(point) for point in run.outcome.points],
                    }
                    for run in one.runs
                ],
            }
            for at, one in enumerate(found)
        ],
    }
