"""``fluvial devices``: which devices are suspected, why, and since when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.text import Text

from fluvial.terminal.invocation import Invocation, json_option, pass_invocation

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from fluvial.reading.devices import Devices, DeviceStanding
    from fluvial.reading.registry import Heard, Registry
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output


@click.command()
@click.option("--task", "task_name", help="Default: the newest on this machine.")
@click.option("--region", help="Which region. Default: all of them.")
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    help="All that were heard of late: cohort, last seen, participation, verdicts.",
)
@click.option("--quarantined", is_flag=True, help="Only those in quarantine.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="How many, the most suspected first; with --all, those heard last.",
)
@json_option
@pass_invocation
def devices(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str | None,
    everybody: bool,
    quarantined: bool,
    limit: int,
) -> int:
    """Which devices are suspected, why, and since when, as the newest window of each partition says.

    With --all, every device that verdicts or heartbeats tell of. Exit code 1 when a partition's newest window cannot be
    read.
    """
    if everybody and quarantined:
        raise click.UsageError("--all and --quarantined: choose one of them")
    if everybody:
        return _everybody(invocation, task_name, region, limit)
    from fluvial.reading.devices import read_devices
    from fluvial.reading.task_view import open_task

    with open_task(invocation, task_name) as view:
        found = read_devices(view, _slots(view, region), quarantined=quarantined, limit=limit)
    invocation.output.document(found.document())
    return show_devices(invocation.output, found, quarantined=quarantined)


def _everybody(invocation: Invocation, task_name: str | None, region: str | None, limit: int) -> int:
    from fluvial.reading.registry import read_registry
    from fluvial.reading.task_view import open_task

    with open_task(invocation, task_name) as view:
        found = read_registry(view, _slots(view, region), limit=limit)
    invocation.output.document(found.document())
    show_registry(invocation.output, found, now_s=time.time())
    return 0


def show_registry(output: Output, found: Registry, *, now_s: float) -> None:
    """The table of all devices that were heard, and how much of it is shown."""
    from aggregation.defences import SHARE_VERSIONS

    if not found.shown:
        output.print("no device was heard of late")
        return
    columns = [
        "device",
        "region",
        "cohort",
        "last seen",
        "took part in",
        "accepted",
        "refused",
        "last verdict",
        "says",
    ]
    output.table(columns, [_heard_row(one, found.head, now_s) for one in found.shown])
    output.print(
        f"showing {len(found.shown)} of {found.total}; took part in: of the last {SHARE_VERSIONS} versions"
    )
    if found.forgotten:
        output.say(f"{found.forgotten} more were heard longer ago, and are not kept")
    if not found.heartbeats:
        output.say(
            "the task has no heartbeats: a device that only waits is not heard (`task create --heartbeats`)"
        )
    if found.strays:
        output.say(f"{found.strays} records among verdicts and heartbeats are none")


def _heard_row(one: Heard, head: int, now_s: float) -> tuple[object, ...]:
    from aggregation.fold.rejections import ACCEPTED
    from fluvial.commands.operator_views import duration

    accepted = one.outcomes[ACCEPTED]
    says = f"{one.state}: {one.reason}" if one.reason else one.state
    return (
        one.device_id,
        one.region if one.partition is None else f"{one.region}[{one.partition}]",
        "?" if one.cohort is None else one.cohort or "-",
        f"{duration(max(0.0, now_s - one.last_ms / 1000))} ago",
        one.participation(head),
        accepted,
        one.outcomes.total() - accepted,
        one.outcome or "-",
        says or "-",
    )


def _slots(view: TaskView, region: str | None) -> list[Slot]:
    if region is None:
        return list(view.genesis.slots)
    view.slot(region, 0)  # an error that names the regions that there are
    return [(region, number) for number in range(view.genesis.partitions[region])]


def show_devices(output: Output, found: Devices, *, quarantined: bool) -> int:
    """The table, how much of it is shown, and what could not be read; returns the exit code."""
    from aggregation.defences import SHARE_VERSIONS
    from fluvial.reading.devices import problems_of

    if found.shown:
        output.table(
            ["device", "partition", "accepted", "anomalous", "quarantine", "last anomalous update"],
            [_row(one) for one in found.shown],
        )
        held = sum(one.quarantined for partition in found.partitions for one in partition.devices)
        output.print(
            f"showing {len(found.shown)} of {found.total}   {held} in quarantine; accepted is of the last "
            f"{SHARE_VERSIONS} versions, anomalous of the last scored updates"
        )
        if held and found.pardons:
            output.say(f"an operator ends a quarantine: {pardon_command(found.task)}")
    elif any(one.version is not None for one in found.partitions):
        output.print(
            "no device is in quarantine"
            if quarantined
            else f"no device had an update scored in the last {SHARE_VERSIONS} versions"
        )
    for one in found.partitions:
        if one.window is None:
            output.say(f"{one.name} has no window yet: its devices are not known")
        if one.strays:
            output.say(
                f"{one.strays} records among the verdicts of {one.name} are not of this log: only workers should write "
                "there"
            )
    problems = problems_of(found.partitions)
    for partition, problem in problems:
        output.say(f"{partition.name} is not shown: its newest window cannot be read", "bold red")
        output.say(str(problem))
    return 1 if problems else 0


def pardon_command(task: str) -> str:
    """What an operator enters who ends a device's quarantine."""
    return f"`fluvial pardon DEVICE --task {task} --region REGION --reason TEXT`"


def _row(one: DeviceStanding) -> tuple[object, ...]:
    state = Text("-")
    if one.quarantined:
        state = Text(f"since version {one.since}, until {one.until}", style="bold red")
    elif one.lifted is not None:
        state = Text(f"lifted @{one.lifted}")
    if one.revoked:
        state = Text("revoked", style="bold red")
    anomalous = f"{one.anomalous} of {one.scored}"
    return (
        one.device_id,
        f"{one.slot[0]}[{one.slot[1]}]",
        one.accepted,
        Text(anomalous, style="yellow") if one.anomalous else anomalous,
        state,
        _reason(one),
    )


def _reason(one: DeviceStanding) -> str:
    from fluvial.commands.operator_views import duration
    from fluvial.reading.devices import age_s

    if one.refusal is None:
        return "-"
    verdict = one.refusal.verdict
    return f"@{verdict.offset}, {duration(age_s(one.refusal))} ago: {verdict.detail}"
