"""``fluvial simulate``: a crowd of any size in virtual time, over the real fold and merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from aggregation.errors import UsageProblem
from fluvial.commands.arrivals_option import arrivals_options, play_arrivals
from fluvial.commands.crowd_options import CrowdOptions, crowd_options, plan_from
from fluvial.commands.policy_option import policy_option
from fluvial.terminal.invocation import (
    Invocation,
    json_option,
    no_check_option,
    pass_invocation,
    traceback_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.simulating.ledger import Ledger, Point
    from fluvial.simulating.plan import Plan
    from fluvial.simulating.simulator import Outcome
    from fluvial.terminal.output import Output
    from learning import Task
    from producers.fleet.failures import FailedRound

TOLD_EVERY_S: Final = 2.0


@click.command()
@click.argument("task_file", metavar="[TASK]", required=False)
@click.option(
    "--synthetic",
    type=click.IntRange(1, 100_000_000),
    metavar="PARAMETERS",
    help="Instead of a task: updates of so many parameters that nobody trained, to see what a crowd's size does.",
)
@policy_option
@arrivals_options
@crowd_options
@click.option(
    "--curve",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a row a version here: CSV, or JSON lines where the name ends in .jsonl.",
)
@no_check_option
@traceback_option
@json_option
@pass_invocation
def simulate(
    invocation: Invocation,
    /,
    *,
    task_file: str | None,
    synthetic: int | None,
    policy: Path | None,
    arrivals: str | None,
    save_arrivals: Path | None,
    curve: Path | None,
    no_check: bool,
    **options: Unpack[CrowdOptions],
) -> int:
    """Simulate a crowd of devices in virtual time, in this process, by the real fold, merge and policy.

    Devices train TASK for real (a file, or a shipped one: digits, fashion), or publish updates of a given size with
    --synthetic. They differ in speed, their rounds have heavy tails, they sleep and drop out, or do as a trace says.
    The same arguments give the same versions, bit for bit. With --arrivals a real run is trained and merged anew.
    """
    if arrivals is not None:
        return play_arrivals(
            invocation,
            task_file,
            arrivals,
            save=save_arrivals,
            versions=options["versions"],
            processes=options["processes"],
        )
    from fluvial.local.checking import check_users
    from fluvial.local.policies import read_policy_file
    from fluvial.simulating.curve import writer_of
    from fluvial.simulating.plan import policy_for
    from fluvial.simulating.simulator import simulate_crowd
    from fluvial.simulating.training import Trainers

    task = _task_of(task_file, synthetic, options)
    output = invocation.output
    plan = plan_from(options, task, synthetic=synthetic or 0)
    rules = policy_for(plan, read_policy_file(policy), task)
    if task is not None and not no_check:
        check_users(task, output, seed=plan.seed)
    output.say(f"simulating {plan.population.name}, {plan.at_once} at once")
    warn_unsigned(plan, output)
    with writer_of(curve) as write:
        told = told_of(output)

        def on_point(point: Point, ledger: Ledger) -> None:
            write(point)
            told(point, ledger)

        if task is None:
            outcome = simulate_crowd(plan, rules, on_point=on_point)
        else:
            with Trainers(task, options["given"], options["processes"]) as trainers:
                outcome = simulate_crowd(
                    plan,
                    rules,
                    task=task,
                    trainers=trainers,
                    on_point=on_point,
                    on_failure=failure_told(output),
                )
    _show(invocation, task, plan, outcome)
    return 0


def _task_of(reference: str | None, synthetic: int | None, options: CrowdOptions) -> Task | None:
    from learning.task import load_task

    if (reference is None) == (synthetic is None):
        what = "neither a task nor --synthetic" if reference is None else "both a task and --synthetic"
        raise UsageProblem(
            "FLV-6450",
            f"expected a task or --synthetic PARAMETERS, got {what}",
            hint="`fluvial simulate digits`, or `fluvial simulate --synthetic 10000`",
        )
    return None if reference is None else load_task(reference, options["given"])


def warn_unsigned(plan: Plan, output: Output) -> None:
    """Say it loudly where devices do not sign."""
    if not plan.signed:
        output.say(
            "UNSIGNED: devices sign nothing and their certificates are not checked, so what signatures cost is left "
            "out (--signed brings it back); all else is as in production",
            style="bold yellow",
        )


def told_of(output: Output) -> Callable[[Point, Ledger], None]:
    """Tells of versions: of each that was evaluated, and else every few seconds."""
    import time

    from fluvial.reading.quality import in_a_line

    said_s = 0.0

    def told(point: Point, ledger: Ledger) -> None:
        nonlocal said_s
        if not point.metrics and not point.problem and time.monotonic() - said_s < TOLD_EVERY_S:
            return
        said_s = time.monotonic()
        shown = f"  not evaluated: {point.problem}" if point.problem else f"  {in_a_line(point.metrics)}"
        output.say(
            f"version {point.version}  {point.seconds:.1f} s  {ledger.updates} updates"
            f"{shown if point.metrics or point.problem else ''}"
        )

    return told


def failure_told(output: Output) -> Callable[[FailedRound, bool], None]:
    """Tells of the first failed round of each kind."""

    def on_failure(failed: FailedRound, first_of_its_kind: bool) -> None:  # noqa: FBT001
        if first_of_its_kind:
            output.say(failed.told())

    return on_failure


def _show(invocation: Invocation, task: Task | None, plan: Plan, outcome: Outcome) -> None:
    from fluvial.session.summary import aim_lines, quality_lines
    from fluvial.simulating.curve import row_of

    output = invocation.output
    output.document(
        {
            "task": task.name if task is not None else "synthetic",
            "simulated": True,
            "signed": plan.signed,
            "devices": plan.population.devices,
            "at_once": plan.at_once,
            **outcome.document(),
            "target": plan.aim.document(outcome.quality),
            "curve": [row_of(point) for point in outcome.points],
        }
    )
    output.print()
    if outcome.values:
        for line, style in quality_lines(outcome.quality, len(outcome.points)):
            output.print(line, style=style)
        for line in aim_lines(plan.aim, outcome.quality):
            output.print(line)
    ledger = outcome.ledger
    verdicts = ", ".join(f"{count} {name}" for name, count in ledger.outcomes.most_common())
    rows = [
        ("ended", outcome.ended),
        ("versions", f"{len(outcome.points)}"),
        ("virtual time", f"{outcome.seconds:.1f} s"),
        ("updates", f"{ledger.updates}: {verdicts}"),
        ("rounds", f"{ledger.rounds}, {ledger.rounds_lost} of them lost, {outcome.failed.total} failed"),
        ("client work", f"{ledger.device_seconds:.1f} device seconds"),
        ("bytes", f"{ledger.bytes_up} up, {ledger.bytes_down} down"),
        (
            "this machine",
            f"{outcome.wall_s:.1f} s, {ledger.updates / max(outcome.wall_s, 1e-9):.0f} updates/s",
        ),
    ]
    output.table(["what", "how much"], rows)
    if not plan.signed:
        output.print("unsigned: the figures are without what signatures cost", style="bold yellow")
    for cause in outcome.failed.causes:
        output.print(f"failed  {cause.line()}")
