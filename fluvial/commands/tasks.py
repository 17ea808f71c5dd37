"""``fluvial task``: what operators do before and while a task runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregation.errors import UsageProblem
from aggregation.regions import is_edge
from fluvial.commands.acls import acls
from fluvial.commands.policy_option import PolicyFile
from fluvial.commands.task_life import discard, list_tasks, rm, show, stop, task_document
from fluvial.terminal.invocation import (
    Invocation,
    json_option,
    no_check_option,
    pass_invocation,
    traceback_option,
)
from fluvial.terminal.numbers import Number
from fluvial.terminal.set_option import set_option

if TYPE_CHECKING:
    from backends.tasks import TaskFile


data_option = click.option(
    "--data",
    default="",
    metavar="PATH",
    help="Examples of one's own: what local_data(PATH) in the task file returns; a .npz, .csv or folder needs none.",
)


@click.group()
def task() -> None:
    """Create, show, stop and remove training tasks."""


for _command in (list_tasks, show, stop, rm, discard, acls):
    task.add_command(_command)


@task.command("create")
@click.argument("reference")
@click.option("--name", help="Default: what the task file says.")
@click.option(
    "--regions",
    default="eu:2,us:2",
    show_default=True,
    metavar="R:N[,R:N]",
    help="Regions and their partitions.",
)
@click.option(
    "--policy",
    "policy_path",
    type=PolicyFile(),
    metavar="FILE|NAME",
    help="Policy: a TOML file (docs/policy.md), or the name of one that ships. It goes before the task file's POLICY.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the first model."
)
@click.option(
    "--from", "origin", metavar="TASK@VERSION",
    help="Begin with the model of this version of another task; TASK alone is its newest.",
)  # fmt: skip
@click.option(
    "--encrypt",
    is_flag=True,
    help="Encrypt the new private keys, with FLUVIAL_KEY_PASSPHRASE (docs/deploy.md).",
)
@click.option(
    "--heartbeats",
    is_flag=True,
    help="With a topic in which devices say that they are there (docs/devices.md).",
)
@set_option
@no_check_option
@traceback_option
@json_option
@pass_invocation
def create(
    invocation: Invocation,
    *,
    reference: str,
    name: str | None,
    regions: str,
    policy_path: Path | None,
    seed: int,
    given: dict[str, Any],
    origin: str | None,
    encrypt: bool,
    heartbeats: bool,
    no_check: bool,
) -> None:
    """Create a task from REFERENCE: a shipped one, such as digits, or your own .py file. Repeating it is harmless."""
    from fluvial.local.checking import check_users
    from fluvial.local.create import create_task, parse_regions
    from fluvial.local.policies import read_policy_file
    from learning.task import load_task

    wanted, settings, loaded = parse_regions(regions), invocation.settings("admin"), load_task(reference)
    if not no_check:
        check_users(loaded, invocation.output, seed=seed)
    file = create_task(
        settings,
        reference=reference,
        name=name,
        regions=wanted,
        policy_text=read_policy_file(policy_path),
        seed=seed,
        given=given or None,
        origin=origin,
        encrypt_keys=encrypt,
        heartbeats=heartbeats,
        output=invocation.output,
    )
    invocation.output.document(task_document(file))
    invocation.output.print(f"task {file.task}   genesis {file.genesis_sha256}")
    invocation.output.print(f"run it: `fluvial merger --task {file.task}`, then for each region R")
    work = f"        `fluvial worker --task {file.task} --region R`, and"
    if loaded.has_data:
        invocation.output.print(f"{work} `fluvial fleet --task {file.task}`")
        return
    invocation.output.print(f"{work} devices with data of their own:")
    invocation.output.print(f"        `fluvial device run --task {file.task} --region R --id ID --data PATH`")
    invocation.output.print(
        f"it is evaluated where `fluvial evaluator --task {file.task} --data PATH` runs, and else by nobody"
    )


@task.command("check")
@click.argument("reference", metavar="FILE")
@click.option(
    "--seconds",
    type=Number(0.1, 86_400),
    default=30.0,
    show_default=True,
    help="Leave it after so long.",
)
@data_option
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the first model."
)
@traceback_option
@json_option
@pass_invocation
def check(invocation: Invocation, *, reference: str, seconds: float, data: str, seed: int) -> None:
    """Try a task FILE before anything is started: load it and its data, train one batch, evaluate."""
    from fluvial.local.checking import check_first
    from learning.task import load_task

    loaded = load_task(reference)
    report = check_first(loaded, invocation.output, seed=seed, seconds_max=seconds, path=data)
    invocation.output.document(
        {
            "task": loaded.name,
            "file": str(loaded.path),
            "complete": not report.unfinished,
            "unfinished": report.unfinished,
            "seconds": round(report.seconds, 3),
            "train": report.trained,
            "evaluate": report.evaluated,
            "step_norm": report.step_norm,
            "notes": report.notes,
        }
    )
    way = f"run it: `fluvial run {reference} --simulate`"
    invocation.output.print(way if loaded.has_data else f"create it: `fluvial task create {reference}`")


task_option = click.option("--task", "task_name", help="Default: the newest on this machine.")
region_option = click.option("--region", required=True, help="A region of the task.")


def check_known_region(file: TaskFile, region: str, *, edges: bool = False) -> None:
    """UsageProblem FLV-2407 unless the task has ``region``; with ``edges``, an edge below one is as good."""
    if region not in file.regions and not (edges and is_edge(region, file.regions)):
        raise UsageProblem(
            "FLV-2407",
            f"the task {file.task} has no region {region!r}, it has {', '.join(file.regions)}",
            hint="name one of them with `--region`; a task's regions are fixed when it is created",
        )
