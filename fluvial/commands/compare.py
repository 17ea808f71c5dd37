"""``fluvial compare``: policies side by side on the same seeds, devices and delays."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from fluvial.commands.crowd_options import CrowdOptions, crowd_options, plan_from
from fluvial.commands.policy_option import PolicyFile
from fluvial.commands.simulate import failure_told, told_of, warn_unsigned
from fluvial.terminal.invocation import (
    Invocation,
    json_option,
    no_check_option,
    pass_invocation,
    traceback_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.simulating.compare import Compared
    from fluvial.simulating.plan import Plan
    from learning import Task

SEEDS_MAX: Final = 100


@click.command()
@click.argument(
    "policies",
    nargs=-1,
    required=True,
    metavar="A [B]",
    type=PolicyFile(),
)
@click.option(
    "--task",
    "reference",
    default="digits",
    show_default=True,
    metavar="[digits|fashion|FILE]",
    help="What to learn.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, SEEDS_MAX),
    default=1,
    show_default=True,
    help="How many seeds, from --seed on.",
)
@crowd_options
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with the curves here."
)
@no_check_option
@traceback_option
@json_option
@pass_invocation
def compare(
    invocation: Invocation,
    /,
    *,
    policies: tuple[Path, ...],
    reference: str,
    seeds: int,
    report: Path | None,
    no_check: bool,
    **options: Unpack[CrowdOptions],
) -> int:
    """Train policies side by side, TOML files or names of those that ship, and say what each needs.

    Each has the same seeds, devices, data and delays. The table has means over the seeds: where the --target was
    reached, else at the end; the page draws every curve against versions, updates, bytes, virtual seconds and client
    work. What is said in words compares with the first policy.
    """
    from fluvial.local.checking import check_users
    from fluvial.local.policies import read_policy_file
    from fluvial.simulating.compare import compare_all, contestants
    from fluvial.simulating.training import Trainers
    from learning.task import load_task

    chosen = contestants([(path, read_policy_file(path)) for path in policies])
    task = load_task(reference, options["given"])
    output = invocation.output
    plan = plan_from(options, task)
    if not no_check:
        check_users(task, output, seed=plan.seed)
    output.say(f"{len(chosen)} policies, {seeds} seeds: {plan.population.name}, {plan.at_once} at once")
    warn_unsigned(plan, output)
    with Trainers(task, options["given"], options["processes"]) as trainers:
        found = compare_all(
            chosen,
            plan,
            range(plan.seed, plan.seed + seeds),
            task=task,
            trainers=trainers,
            on_run=lambda name, seed: output.say(f"{name}, seed {seed}"),
            on_point=told_of(output),
            on_failure=failure_told(output),
        )
    _show(invocation, found, plan, task, report)
    return 0


def _show(
    invocation: Invocation, found: Sequence[Compared], plan: Plan, task: Task, report: Path | None
) -> None:
    from fluvial.simulating.compare import columns_of, document, in_words, rows_of
    from fluvial.simulating.page import render, write_page

    output = invocation.output
    if report is not None:
        words = shlex.join(sys.argv[1:])
        write_page(report, render(found, plan, task.name, command=f"fluvial {words}"))
        output.say(f"the page is {report}")
    output.document(document(found, plan, task.name))
    output.table(columns_of(found), rows_of(found, has_target=plan.aim.until is not None))
    for line in in_words(found):
        output.print(line)
