"""``fluvial new`` writes a task file; ``fluvial run`` trains it on the local stack, or here with --simulate."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from aggregation.fold.rejections import ACCEPTED
from fluvial.commands.flower_option import flower_options, task_file_asked
from fluvial.commands.policy_option import policy_option
from fluvial.commands.run_plan import (
    Options,
    aim_from,
    course_of,
    going_on_options,
    plan_of,
    refuse_without_effect,
    settings_of,
)
from fluvial.terminal.invocation import (
    Invocation,
    json_option,
    no_check_option,
    pass_invocation,
    program,
    traceback_option,
)
from fluvial.terminal.run_options import alpha_option, secured_option, store_option, workers_option

if TYPE_CHECKING:
    from fluvial.session.aim import Aim
    from fluvial.session.plan import RunPlan
    from fluvial.session.simulation import SimulationResult
    from fluvial.terminal.output import Output
    from learning import Task
    from producers.fleet.failures import FailedRound

DEVICES: Final = 12
VERSIONS: Final = 20


@click.command()
@click.argument("name")
@json_option
@pass_invocation
def new(invocation: Invocation, name: str) -> None:
    """Write NAME.py, a working task to edit, into this folder."""
    from learning.new_task import write_task

    path = write_task(name, Path.cwd())
    output = invocation.output
    output.document({"task": name, "file": str(path)})
    output.print(f"wrote {path.name}: four short functions, ready to run and to edit")
    output.print(f"next  {program()} run {path.name} --simulate    in this process, in seconds")
    output.print(f"      {program()} run {path.name}               on the local stack, signed and audited")


@click.command()
@click.argument("file", required=False)
@flower_options
@click.option(
    "--devices",
    type=click.IntRange(1, 10_000),
    show_default=f"{DEVICES}, or one for each part of the data",
    help="How many devices.",
)
@click.option(
    "--versions",
    type=click.IntRange(1, 10_000),
    default=VERSIONS,
    show_default=True,
    help="Versions to train.",
)
@click.option(
    "--regions", default="local:2", show_default=True, help="Regions and their partitions, such as eu:2,us:2."
)
@workers_option
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the model, devices and data split.",
)
@alpha_option
@policy_option
@store_option
@secured_option
@click.option(
    "--simulate",
    is_flag=True,
    help="In this process, without Kafka: the same fold and the same merge, on a clock of its own.",
)
@going_on_options
@no_check_option
@traceback_option
@json_option
@pass_invocation
def run(
    invocation: Invocation,
    /,
    file: str | None,
    policy: Path | None,
    simulate: bool,  # noqa: FBT001 (click passes it by name)
    no_check: bool,  # noqa: FBT001
    **options: Unpack[Options],
) -> int:
    """Train the task in FILE (or a shipped one, such as digits), or a Flower app, and audit what came out."""
    from fluvial.local.checking import check_users, devices_of_task
    from fluvial.local.policies import read_policy_file
    from fluvial.session.aim import parse_until
    from learning.task import load_task

    if simulate:
        refuse_without_effect()
    file = task_file_asked(file, options, invocation.output)
    task = load_task(file)  # its mistakes are shown before anything is started
    text = read_policy_file(policy)
    course = None if simulate else course_of(invocation, task, file, options)
    task = task.with_settings(settings_of(course, options) if course else options["given"])
    parse_until(options["until"])  # its form is refused before anything is tried
    report = None if no_check else check_users(task, invocation.output, seed=options["seed"])
    aim = aim_from(task, options, report)
    devices = devices_of_task(task, options["devices"], DEVICES, invocation.output)
    if course is None:
        _simulate(invocation, task, options, text, devices=devices, aim=aim)
        return 0
    shown = invocation.show_traceback
    plan = plan_of(course, task, options, text, aim=aim, devices=devices, traceback=shown)
    return _run(invocation, task, plan)


def _run(invocation: Invocation, task: Task, plan: RunPlan) -> int:
    from fluvial.session.report.render import final_model, write_report
    from fluvial.session.run import run_session
    from fluvial.session.summary import document, summarize
    from fluvial.terminal.set_option import words_of

    result = run_session(plan, invocation.home, invocation.output)
    folder = invocation.home / "reports" / result.task
    numbers = ["--devices", str(plan.devices), "--versions", str(result.plan.versions)]
    words = shlex.join(["run", task.reference, *numbers, *words_of(plan.given)])
    page = write_report(
        result,
        final_model(result),
        folder,
        program=invocation.command,
        command=f"{invocation.command} {words}",
    )
    output = invocation.output
    output.document(document(result))
    summarize(result, output, report=page, command=invocation.command)
    problem = result.problem()
    if problem is not None:
        output.json = False  # the one document is written; the finding goes to stderr
        raise problem
    return 0


def _honest_refused(result: SimulationResult) -> Counter[str]:
    return Counter(
        update.verdict.outcome
        for update in result.updates
        if update.honest and update.verdict.outcome != ACCEPTED
    )


def _simulate(
    invocation: Invocation, task: Task, options: Options, policy_text: str, *, devices: int, aim: Aim
) -> None:
    from fluvial.local.create import parse_regions
    from fluvial.local.policies import layered_policy, quick_policy
    from fluvial.reading.quality import Quality, in_a_line
    from fluvial.session.engine import VersionFacts
    from fluvial.session.simulation import simulate
    from learning.control import asks_for_control
    from schemas.task_metric import ACCURACY, LOSS, metric_among, values_of

    output = invocation.output
    versions, values = options["versions"], dict[int, dict[str, float]]()
    quick = quick_policy(devices, control=asks_for_control(task.config.extra))
    policy = layered_policy(explicit=policy_text, task=task.policy_overrides, defaults=quick)

    def on_version(facts: VersionFacts) -> bool:
        shown = f"not evaluated: {facts.problem}" if facts.problem else in_a_line(facts.metrics)
        output.say(f"version {facts.version}/{versions}  {shown}")
        if facts.problem:
            return False
        values[facts.version] = values_of(facts.metrics)
        why = aim.ends(Quality(task.metric or metric_among(facts.metrics), values))
        if why:
            output.say(f"trained enough: {why}")
        return bool(why)

    def on_failure(failed: FailedRound, first_of_its_kind: bool) -> None:  # noqa: FBT001
        if first_of_its_kind:
            output.say(failed.told())

    output.say(f"simulating {devices} devices in this process: the real rules, no Kafka, nothing stored")
    result = simulate(
        task,
        devices=devices,
        versions=versions,
        policy=policy,
        regions=parse_regions(options["regions"]),
        alpha=options["alpha"],
        seed=options["seed"],
        on_version=on_version,
        on_failure=on_failure,
    )
    quality = result.quality
    curves = {name: [round(value, 6) for _, value in quality.curve(name)] for name in quality.names}
    output.document(
        {
            "task": task.name,
            "simulated": True,
            "versions": len(result.versions),
            "metric": quality.document(),
            "until": aim.document(quality),
            "metrics": curves,
            ACCURACY: curves.get(ACCURACY, []),
            LOSS: curves.get(LOSS, []),
            "verdicts": result.verdicts,
            "honest_refused": dict(_honest_refused(result)),
            "failed_rounds": result.failed_rounds.document(),
            "model_sha256": result.versions[-1].model_sha256,
        }
    )
    _tell_simulated(output, result, aim)
    output.print(
        f"next  {invocation.command} run {task.reference}    the same on the local stack: signed, stored and audited"
    )


def _tell_simulated(output: Output, result: SimulationResult, aim: Aim) -> None:
    from fluvial.reading.quality import in_a_line
    from fluvial.session.summary import aim_lines, honest_refused_line, quality_lines

    honest = honest_refused_line(_honest_refused(result))
    output.print()
    for line, style in quality_lines(result.quality, len(result.versions)):
        output.print(line, style=style)
    for line in aim_lines(aim, result.quality):
        output.print(line)
    output.print(f"           {in_a_line(result.versions[-1].metrics)}")
    if honest:
        output.print(f"refused: {honest}")
    for cause in result.failed_rounds.causes:
        output.print(f"failed  {cause.line()}")
