"""What ``fluvial run`` was told, as a plan: which task, new or going on, and with which settings."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar

import click

from aggregation.errors import UsageProblem
from fluvial.session.limits import STALL_S
from fluvial.terminal.numbers import POSITIVE
from fluvial.terminal.set_option import set_option
from stream_apps.evaluator.limits import EVALUATION_S_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.session.aim import Aim
    from fluvial.session.going_on import Course, Further, Wish
    from fluvial.session.plan import RunPlan
    from fluvial.terminal.invocation import Invocation
    from learning import Task
    from learning.checking import CheckReport

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")
STACK_ONLY: Final = frozenset(
    {"workers", "store", "secured", "stall_s", "evaluation_s", "name", "go_on", "fresh", "origin"}
)
"""What only means something on a stack."""


evaluation_option = click.option(
    "--evaluation-seconds",
    "evaluation_s",
    type=POSITIVE,
    default=EVALUATION_S_MAX,
    show_default=True,
    help="How long evaluate() may take. A version that takes longer is published as late, and the next one follows.",
)

stall_option = click.option(
    "--stall-seconds",
    "stall_s",
    type=POSITIVE,
    default=STALL_S,
    show_default=True,
    help="Give up when nobody has worked for so long. A device that trains works, however long it takes.",
)


origin_option = click.option(
    "--from", "origin", metavar="TASK@VERSION",
    help="A new task that begins with the model of this version; TASK alone is its newest.",
)  # fmt: skip


class Options(TypedDict):
    """The options of `run` that say what and how to train."""

    devices: int | None
    versions: int
    regions: str
    workers: int
    seed: int
    alpha: float
    stall_s: float
    evaluation_s: float
    store: Literal["auto", "minio", "file"]
    secured: bool | None
    name: str | None
    go_on: bool
    fresh: bool
    given: dict[str, Any]
    until: str | None
    patience: int
    origin: str | None
    flower: str | None
    flower_server: str


def going_on_options(function: _Function) -> _Function:
    """Add what says which task, with which settings, and when to end or to give up."""
    for option in (
        click.option(
            "--patience", type=click.IntRange(0), default=0, metavar="N",
            help="End after N versions without a better one, by --until's number or the task's metric.",
        ),
        click.option(
            "--until", metavar="NAME=NUMBER",
            help="End when a version reaches it, such as accuracy=0.95, or mae=0.1 where lower is better; else after "
            "--versions.",
        ),
        evaluation_option,
        stall_option,
        set_option,
        origin_option,
        click.option("--name", help="What the task is called. Default: what its file says."),
        click.option("--fresh", is_flag=True, help="A new task, though one of this file was trained before."),
        click.option(
            "--continue", "go_on", is_flag=True,
            help="Train --versions more on top of the newest task of this file. Without this and --fresh it asks, or "
            "ends where there is nobody to ask.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def is_typed(name: str) -> bool:
    """Whether the running command was given its option ``name``, be it with the default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def refuse_without_effect() -> None:
    """UsageProblem FLV-6320 for an option that a simulation would take and do nothing with."""
    command = click.get_current_context().command
    given = [one.opts[0] for one in command.params if one.name in STACK_ONLY and is_typed(str(one.name))]
    if given:
        raise UsageProblem(
            "FLV-6320",
            f"with --simulate there is nothing that {' and '.join(given)} could do: it runs in this process, "
            "with one worker a region, and stores nothing",
            hint=f"leave {' and '.join(given)} out, or leave out `--simulate`",
        )


def course_of(invocation: Invocation, task: Task, file: str, options: Options) -> Course:
    """Which task the run trains. Raises what ``choose_course`` raises; UsageProblem FLV-6001 for two wishes at once."""
    from fluvial.local.create import lasting_reference
    from fluvial.local.origin import parse_origin
    from fluvial.session.going_on import Asked, choose_course
    from learning.names import check_task_name

    if options["go_on"] and options["fresh"]:
        raise UsageProblem(
            "FLV-6001", "--continue and --fresh exclude each other", hint="see `fluvial run --help`"
        )
    if options["origin"] is not None:
        parse_origin(options["origin"])
        if options["go_on"]:
            raise UsageProblem(
                "FLV-6001",
                "--continue trains the same task, --from begins a new one: they exclude each other",
                hint="see `fluvial run --help`",
            )
    wish: Wish = (
        "continue" if options["go_on"] else "fresh" if options["fresh"] or options["origin"] else "ask"
    )
    name = options["name"]
    asked = Asked(
        reference=lasting_reference(task, file),
        name=check_task_name(name, "--name") if name else task.name,
        wish=wish,
        typed=f"{invocation.command} run {shlex.quote(file)}" + (f" --name {name}" if name else ""),
        named=bool(name),
    )
    return choose_course(invocation.home, asked, invocation.output)


def aim_from(task: Task, options: Options, report: CheckReport | None) -> Aim:
    """What ends the run before its last version. A number that the trial has not seen is refused: FLV-2247 to 2249."""
    from fluvial.session.aim import aim_of, parse_until, require_reported

    wanted = parse_until(options["until"])
    if wanted is not None and report is not None and report.evaluated:
        require_reported(wanted[0], report.evaluated)
    return aim_of(options["until"], options["patience"], task.metric, str(task.path))


def plan_of(
    course: Course, task: Task, options: Options, policy_text: str, *, aim: Aim, devices: int, traceback: bool
) -> RunPlan:
    """The plan for ``devices``; for a task that goes on, what was not said anew is as it was recorded."""
    from fluvial.local.create import parse_regions
    from fluvial.local.policies import quick_policy
    from fluvial.session.plan import RunPlan
    from learning.control import asks_for_control
    from producers.fleet.population import FleetConfig

    file = course.file
    seed, alpha = options["seed"], options["alpha"]
    if file is not None:
        devices = devices if is_typed("devices") else file.devices or devices
        alpha = alpha if is_typed("alpha") else file.alpha or alpha
        seed = file.seed
    FleetConfig(devices=devices, seed=seed, alpha=alpha)
    regions = parse_regions(options["regions"])
    return RunPlan(
        reference=task.reference,
        name=course.name,
        named=options["name"] is not None,
        regions=regions,
        devices=devices,
        versions=options["versions"],
        workers=options["workers"],
        seed=seed,
        alpha=alpha,
        stall_s=options["stall_s"],
        evaluation_s=options["evaluation_s"],
        store=options["store"],
        secured=options["secured"],
        policy_text=policy_text,
        policy_defaults=quick_policy(devices, control=asks_for_control(task.config.extra)),
        each_version=True,
        traceback=traceback,
        aim=aim,
        origin=options["origin"],
        given=settings_of(course, options),
        further=_further(course, options, regions, policy=bool(policy_text)),
    )


def settings_of(course: Course, options: Options) -> dict[str, Any]:
    """The task's recorded settings, and over them those that were given now."""
    return {**(course.file.settings if course.file is not None else {}), **options["given"]}


def _further(course: Course, options: Options, regions: dict[str, int], *, policy: bool) -> Further | None:
    from fluvial.session.going_on import Further

    if course.file is None:
        return None
    return Further(
        file=course.file,
        regions=regions if is_typed("regions") else None,
        seed=options["seed"] if is_typed("seed") else None,
        policy=policy,
    )
