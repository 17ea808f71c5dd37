"""Options that say what crowd is simulated: `fluvial simulate` and `fluvial compare` have them in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import click

from aggregation.errors import UsageProblem
from fluvial.terminal.numbers import NOT_NEGATIVE, POSITIVE, Number
from fluvial.terminal.run_options import alpha_option
from fluvial.terminal.set_option import set_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.simulating.plan import Plan
    from fluvial.simulating.population import Delays, Population
    from learning import Task

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")
DEVICES: Final = 100
SHARE: Final = Number(0.0, 1.0)
OF_ARITHMETIC: Final = ("--devices", "--delays", "--tail", "--speed-spread", "--day", "--awake", "--dropouts")
"""What a trace says instead."""


class CrowdOptions(TypedDict):
    """The options of a crowd, as click passes them."""

    devices: int | None
    at_once: int | None
    regions: str
    alpha: float
    seed: int
    round_s: float
    delays: Delays
    tail: float
    speed_spread: float
    day_s: float
    awake: float
    dropouts: float
    trace: Path | None
    versions: int | None
    updates: int | None
    seconds: float | None
    target: str | None
    evaluate_every: int
    processes: int
    signed: bool | None
    given: dict[str, Any]


def crowd_options(function: _Function) -> _Function:
    """Add them."""
    for option in reversed(
        (
            click.option("--devices", type=click.IntRange(1, 1 << 20),
                show_default=f"{DEVICES}, or one for each part of the data", help="How many devices."),
            click.option("--at-once", type=click.IntRange(1), show_default="all, at most 1000",
                help="How many devices train at the same time."),
            click.option("--regions", default="local:2", show_default=True,
                help="Regions and their partitions, such as eu:2,us:2."),
            alpha_option,
            click.option("--seed", type=click.IntRange(0, (1 << 32) - 1), default=0, show_default=True,
                help="Of the model, devices, delays and data split."),
            click.option("--round", "round_s", type=POSITIVE, default=1.0, show_default=True,
                help="Median seconds of a device's round."),
            click.option("--delays", type=click.Choice(["none", "lognormal", "pareto"]), default="lognormal",
                show_default=True, help="How a device's rounds differ from each other."),
            click.option("--tail", type=POSITIVE, default=1.0, show_default=True,
                help="Sigma of the log-normal, or the Pareto's shape: the smaller that, the heavier."),
            click.option("--speed-spread", type=NOT_NEGATIVE, default=0.5, show_default=True,
                help="How devices differ: sigma of the log-normal pace that each keeps."),
            click.option("--day", "day_s", type=NOT_NEGATIVE, default=0.0, show_default="none",
                help="Seconds of a day; devices sleep for a part of it."),
            click.option("--awake", type=SHARE, default=0.4, show_default=True,
                help="Share of a day in which a device is there."),
            click.option("--dropouts", type=SHARE, default=0.0, show_default=True,
                help="Share of the rounds that are lost on the way."),
            click.option("--trace", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="When devices are there and how long their rounds take, from a CSV: docs/simulate.md."),
            click.option("--versions", type=click.IntRange(1),
                show_default="20; 1000 with a target; none with --updates or --seconds",
                help="End after so many versions."),
            click.option("--updates", type=click.IntRange(1), help="End after so many updates."),
            click.option("--seconds", type=POSITIVE, help="End after so many seconds of the simulated clock."),
            click.option("--target", metavar="NAME=NUMBER",
                help="End when a version reaches it, such as accuracy=0.8, or mae=0.1 where lower is better."),
            click.option("--evaluate-every", type=click.IntRange(1), default=1, show_default=True,
                help="Evaluate every so many versions."),
            click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True,
                help="Processes that train devices; the result is the same with any number."),
            click.option("--signed/--unsigned", "signed", default=None,
                help="Whether devices sign. Default: they do, but for synthetic ones."),
            set_option,
        )
    ):  # fmt: skip
        function = option(function)
    return function


def plan_from(options: CrowdOptions, task: Task | None, *, synthetic: int = 0) -> Plan:
    """The plan that options say. UsageProblem FLV-6450, FLV-6451, FLV-2247, FLV-2249, FLV-2405, FLV-2232."""
    from fluvial.local.create import parse_regions
    from fluvial.session.aim import aim_of
    from fluvial.simulating.crowd import AT_ONCE
    from fluvial.simulating.plan import (
        SECONDS_MAX,
        UPDATES_MAX,
        VERSIONS,
        VERSIONS_MAX,
        VERSIONS_TO_TARGET,
        Plan,
    )

    regions = parse_regions(options["regions"])
    population = _population(options, task, len(regions))
    otherwise = VERSIONS if options["target"] is None else VERSIONS_TO_TARGET
    if options["updates"] is not None or options["seconds"] is not None:
        otherwise = VERSIONS_MAX
    where = str(task.path) if task is not None else ""
    if task is None and options["target"] is not None:
        raise UsageProblem(
            "FLV-6450",
            "nobody evaluates updates that nobody trained",
            hint="leave `--target` out, or name a task",
        )
    return Plan(
        population=population,
        at_once=options["at_once"] or min(AT_ONCE, population.devices),
        versions=options["versions"] or otherwise,
        updates=options["updates"] or UPDATES_MAX,
        seconds=options["seconds"] or SECONDS_MAX,
        aim=aim_of(options["target"], 0, task.metric if task is not None else None, where),
        evaluate_every=options["evaluate_every"],
        regions=regions,
        alpha=options["alpha"],
        seed=options["seed"],
        round_s=options["round_s"],
        synthetic=synthetic,
        signed=options["signed"] if options["signed"] is not None else not synthetic,
    )


def _population(options: CrowdOptions, task: Task | None, zones: int) -> Population:
    from fluvial.simulating.population import Drawn
    from fluvial.simulating.trace import read_trace
    from learning.parts import devices_of

    if options["trace"] is not None:
        given = [name for name in OF_ARITHMETIC if _is_typed(name)]
        if given:
            raise UsageProblem(
                "FLV-6450",
                f"a trace says who is there and how long rounds take: {' and '.join(given)} could do nothing",
                hint=f"leave {' and '.join(given)} out, or `--trace`",
            )
        trace = read_trace(options["trace"])
        if task is not None:
            devices_of(task.data(), trace.devices, DEVICES)
        return trace
    asked = options["devices"]
    return Drawn(
        devices=(asked or DEVICES) if task is None else devices_of(task.data(), asked, DEVICES),
        seed=options["seed"],
        round_s=options["round_s"],
        speed_spread=options["speed_spread"],
        delays=options["delays"],
        tail=options["tail"],
        day_s=options["day_s"],
        awake=options["awake"],
        zones=zones,
        dropouts=options["dropouts"],
    )


def _is_typed(option: str) -> bool:
    context = click.get_current_context()
    named = next(one for one in context.command.params if option in one.opts)
    return context.get_parameter_source(str(named.name)) is click.core.ParameterSource.COMMANDLINE
