"""``fluvial demo``: a federation with attackers on this machine, audited to the last bit."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack

import click

from fluvial.commands.policy_option import named, policy_option
from fluvial.commands.run_plan import evaluation_option, stall_option
from fluvial.terminal.invocation import Invocation, no_check_option, pass_invocation, traceback_option
from fluvial.terminal.run_options import alpha_option, secured_option, store_option, workers_option

if TYPE_CHECKING:
    from fluvial.session.plan import RunPlan, RunResult
    from fluvial.terminal.output import Output

DEVICES: Final = 40
REGIONS: Final = "eu,us,ap"
VERSIONS: Final = 40
ATTACKERS: Final = 4
GUIDE: Final = "guide"
"""The defence where a shipped task is trained: its held-out examples are a root set. A user's own may not be."""
MISBEHAVING: Final = 6


class Options(TypedDict):
    """The options that say what to run."""

    devices: int | None
    regions: str
    versions: int
    attackers: int
    misbehaving: int | None
    seed: int
    workers: int
    chaos: int
    alpha: float
    policy: Path | None
    store: Literal["auto", "minio", "file"]
    no_console: bool
    secured: bool | None
    stall_s: float
    evaluation_s: float


@click.command()
@click.option(
    "--task",
    "reference",
    default="digits",
    show_default=True,
    metavar="[digits|fashion|FILE]",
    help="What to learn.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 10_000),
    show_default=f"{DEVICES}, or one for each part of the data",
    help="How many devices.",
)
@click.option(
    "--regions", default=REGIONS, show_default=True, help="Regions; eu:4 gives one four partitions, not two."
)
@click.option(
    "--versions",
    type=click.IntRange(1, 10_000),
    default=VERSIONS,
    show_default=True,
    help="Versions to train.",
)
@click.option(
    "--attackers", type=click.IntRange(0), default=ATTACKERS, show_default=True, help="Devices that attack."
)
@click.option(
    "--misbehaving", type=click.IntRange(0), help=f"Devices that break the rules.  [default: {MISBEHAVING}]"
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of devices, data split and chaos."
)
@workers_option
@click.option(
    "--chaos",
    type=click.IntRange(0, 1000),
    default=0,
    help="Kill workers or the merger with -9 so many times.",
)
@alpha_option
@policy_option
@store_option
@click.option("--no-console", is_flag=True, help="Serve no live page while it runs.")
@secured_option
@stall_option
@evaluation_option
@no_check_option
@traceback_option
@click.option(
    "--json",
    "json_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="Write the result as JSON; to stdout without FILE or with -.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the report goes. Default: in the home.",
)
@pass_invocation
def demo(
    invocation: Invocation,
    /,
    reference: str,
    json_file: str | None,
    report: Path | None,
    no_check: bool,  # noqa: FBT001 (click passes it by name)
    **options: Unpack[Options],
) -> int:
    """Train, attack and audit a federation on this machine: Kafka, the store, three regions and 40 devices.

    Ctrl-C stops everything that the demo started. At its end the stack stays up, so that you can look around.
    """
    from fluvial.local.checking import check_users
    from fluvial.session.run import run_session
    from fluvial.session.summary import STDOUT, check_json_target, check_report_folder, summarize, write_json

    output = invocation.output
    output.json = json_file == STDOUT
    check_json_target(json_file)
    plan = replace(_plan(invocation.home, reference, options, output), traceback=invocation.show_traceback)
    check_report_folder(report)
    if not no_check:
        check_users(reference, output, seed=plan.seed)
    result = run_session(plan, invocation.home, output)
    page = _write_report(invocation, result, report)
    if json_file is not None:
        write_json(json_file, result, output)
    summarize(result, output, report=page, command=invocation.command)
    problem = result.problem()
    if problem is not None:
        output.json = False  # the one document is written; the finding goes to stderr
        raise problem
    return 0


def _plan(home: Path, reference: str, options: Options, output: Output) -> RunPlan:
    from fluvial.local.checking import devices_of_task
    from fluvial.local.create import parse_regions
    from fluvial.local.policies import quick_policy, read_policy_file
    from fluvial.session.going_on import free_task_name
    from fluvial.session.plan import RunPlan
    from learning.shipped import GUIDED
    from learning.task import load_task
    from producers.fleet.population import FleetConfig

    task = load_task(reference)
    devices = devices_of_task(task, options["devices"], DEVICES, output)
    attackers, misbehaving = options["attackers"], options["misbehaving"]
    if misbehaving is None:
        # A small fleet shall still have honest devices.
        misbehaving = max(0, min(MISBEHAVING, (devices - attackers) // 3))
    seed, alpha = options["seed"], options["alpha"]
    # Refused now, not when the stack is up.
    FleetConfig(devices=devices, attackers=attackers, misbehaving=misbehaving, seed=seed, alpha=alpha)
    return RunPlan(
        reference=reference,
        name=free_task_name(home, task.name),
        regions=parse_regions(options["regions"]),
        devices=devices,
        versions=options["versions"],
        attackers=attackers,
        misbehaving=misbehaving,
        seed=seed,
        workers=options["workers"],
        chaos=options["chaos"],
        alpha=alpha,
        stall_s=options["stall_s"],
        evaluation_s=options["evaluation_s"],
        store=options["store"],
        secured=options["secured"],
        policy_text=read_policy_file(options["policy"]),
        policy_from=named(options["policy"]),
        policy_defaults=quick_policy(
            devices - attackers - misbehaving, defence=GUIDE if reference in GUIDED else ""
        ),
        console=not options["no_console"],
    )


def _write_report(invocation: Invocation, result: RunResult, folder: Path | None) -> Path:
    from fluvial.session.report.render import final_model, write_report

    target = folder or invocation.home / "reports" / result.task
    return write_report(
        result,
        final_model(result),
        target.absolute(),
        program=invocation.command,
        command=command_of(invocation, result.plan),
    )


def command_of(invocation: Invocation, plan: RunPlan) -> str:
    """The command line that runs `plan`."""
    from fluvial.local.create import describe_regions

    words: dict[str, object] = {
        "--task": plan.reference,
        "--devices": plan.devices,
        "--regions": describe_regions(plan.regions),
        "--versions": plan.versions,
        "--attackers": plan.attackers,
        "--misbehaving": plan.misbehaving,
        "--seed": plan.seed,
        "--workers": plan.workers,
        "--chaos": plan.chaos,
        "--alpha": plan.alpha,
    } | ({"--policy": plan.policy_from} if plan.policy_from else {})
    arguments = shlex.join(str(word) for pair in words.items() for word in pair)
    return f"{invocation.command} demo {arguments}"
