"""``fluvial pardon``: end a device's quarantine, by an operator's signed Pardon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backends.shown import one_line
from fluvial.commands.operators_record import append_signed, reason_option, timeout_option, verdict_within
from fluvial.commands.tasks import check_known_region, region_option, task_option
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.key_place import operator_key_option

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict
    from aggregation.server.aggregates import Slot
    from backends.log import Position
    from fluvial.reading.devices import DeviceStanding
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output


@click.command()
@click.argument("device")
@task_option
@region_option
@reason_option
@timeout_option
@operator_key_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def pardon(
    invocation: Invocation,
    *,
    device: str,
    task_name: str | None,
    region: str,
    reason: str,
    timeout_s: float,
    key: Path | str | None,
    yes: bool,
) -> None:
    """End the quarantine of DEVICE, from now on: its updates are judged again.

    What was refused stays refused, and as many anomalous updates as before bring the device back. Where it is in no
    quarantine, nothing is written.
    """
    from aggregation.partitioning import partition_of
    from fluvial.local.operators_key import operators_key
    from fluvial.reading.task_view import open_task
    from fluvial.reading.verdicts import verdict_document

    output = invocation.output
    with open_task(invocation, task_name, "operator") as view:
        check_known_region(view.file, region)
        slot = view.slot(region, partition_of(device, view.genesis.partitions[region]))
        key_pair = operators_key(view.settings, view.task, view.trust, key)
        held = _quarantine_of(view, slot, device)
        output.say(f"{one_line(device)} is in quarantine since version {held.since}, until {held.until}")
        output.confirm(f"end the quarantine of {one_line(device)}?", yes=yes)
        position = append_signed(
            view,
            slot,
            "Pardon",
            {"device_id": device, "until": held.until, "reason": reason},
            signer=key_pair.of_task(view.trust.domain),
            key=device,
        )
        output.say(f"the Pardon stands at {position.topic}[{position.partition}]@{position.offset}")
        verdict, lifted = _await_lifted(output, view, slot, device, position=position, timeout_s=timeout_s)
    output.document(
        {
            "task": view.task,
            "region": region,
            "partition": slot[1],
            "device_id": device,
            "until": held.until,
            "reason": reason,
            "offset": position.offset,
            "lifted": lifted,
            "verdict": verdict_document(slot, verdict),
        }
    )
    output.print(one_line(f"{region}[{slot[1]}]@{position.offset}: {verdict.detail}"))


def _quarantine_of(view: TaskView, slot: Slot, device: str) -> DeviceStanding:
    """How the device stands, if it is in quarantine by the newest window of its partition.

    UsageProblem FLV-6434 (the policy knows no Pardon), FLV-6435 (it is in none); what reading the window raises.
    """
    from aggregation.errors import UsageProblem
    from fluvial.reading.devices import partition_of_task

    policy = view.genesis.first_policy
    if not policy.knows_pardons:
        raise UsageProblem(
            "FLV-6434",
            f"task {view.task} is of {policy.format}: its workers know no record that ends a quarantine",
            hint=f"the quarantine ends by itself: `fluvial devices --task {view.task} --quarantined` says when",
        )
    found = partition_of_task(view, slot)
    if found.problem is not None:
        raise found.problem
    # By the window that a worker signed: verdicts, which nobody signs, do not keep an operator from writing.
    held = next((one for one in found.devices if one.device_id == device and one.until is not None), None)
    if held is None:
        raise UsageProblem(
            "FLV-6435",
            f"{one_line(device)} is in no quarantine, as the newest window of {found.name} says: nothing is lifted",
            where=f"task {view.task}, region {slot[0]}",
            hint=f"see who is with `fluvial devices --task {view.task} --quarantined`; a quarantine shows there with "
            "the first window behind its begin",
        )
    return held


def _await_lifted(
    output: Output, view: TaskView, slot: Slot, device: str, *, position: Position, timeout_s: float
) -> tuple[Verdict, bool]:
    """The verdict on the Pardon, and whether it ended the quarantine; False where that was over by then.

    TimeoutProblem FLV-6436 (no verdict in time), Finding FLV-6437 (the workers refuse the record).
    """
    from aggregation.errors import Finding, TimeoutProblem
    from aggregation.fold.rejections import CONTROL
    from aggregation.reasons import Reason

    where = f"{position.topic}[{position.partition}]@{position.offset}"
    with output.waiting(f"a worker of {slot[0]} to end the quarantine of {one_line(device)}") as waiting:
        verdict = verdict_within(view, slot, position.offset, timeout_s, waiting)
    if verdict is None:
        raise TimeoutProblem(
            "FLV-6436",
            f"the Pardon is in the log, but no worker has come to it within {timeout_s:g} s",
            where=where,
            hint="see with `fluvial status` whether a worker of the region runs: it obeys the Pardon once it is there",
        )
    if verdict.outcome != CONTROL:
        raise Finding(
            "FLV-6437",
            f"nothing was lifted, the Pardon is {verdict.outcome}: {verdict.detail}",
            where=where,
            hint="mend what the verdict names, such as an operator's certificate that was revoked; then run this again",
        )
    return verdict, verdict.because.reason is Reason.PARDON
