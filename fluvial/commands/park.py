"""``fluvial park``: leave out a record that makes the fold itself raise, by an operator's signed Skip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.shown import one_line
from fluvial.commands.operators_record import append_signed, reason_option, timeout_option, verdict_within
from fluvial.commands.tasks import check_known_region, region_option, task_option
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.key_place import operator_key_option

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict
    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord, Position
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output


@click.command()
@task_option
@region_option
@click.option("--partition", type=click.IntRange(0), required=True, help="Of the region.")
@click.option(
    "--offset", type=click.IntRange(0), required=True, help="Where the partition stands: FLV-3202 names it."
)
@reason_option
@timeout_option
@operator_key_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def park(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    partition: int,
    offset: int,
    reason: str,
    timeout_s: float,
    key: Path | str | None,
    yes: bool,
) -> None:
    """Park one record that makes the fold raise (FLV-3202), so that its partition goes on without it.

    The record stays in the log and counts as `skipped`. One that can be folded after all is folded as if nothing were.
    """
    from fluvial.local.create import OPERATOR
    from fluvial.local.operators_key import operators_key
    from fluvial.reading.task_view import open_task
    from fluvial.reading.verdicts import verdict_document

    output = invocation.output
    with open_task(invocation, task_name, "operator") as view:
        check_known_region(view.file, region)
        slot = view.slot(region, partition)
        key_pair = operators_key(view.settings, view.task, view.trust, key)
        record = _parkable(view, slot, offset)
        what = _description(view, record)
        output.say(f"the record: {_sentence(record, what)}")
        output.confirm(f"park it for ever, so that {region}[{partition}] goes on without it?", yes=yes)
        position = append_signed(
            view,
            slot,
            "Skip",
            {"partition": partition, "offset": offset, "reason": reason},
            signer=key_pair.of_task(view.trust.domain),
            key=OPERATOR,
        )
        output.say(f"the Skip stands at {position.topic}[{position.partition}]@{position.offset}")
        verdict = _await_parked(output, view, slot, offset, position=position, timeout_s=timeout_s)
    output.document(
        {
            "task": view.task,
            "region": region,
            "partition": partition,
            "offset": offset,
            "reason": reason,
            "record": what,
            "skip_offset": position.offset,
            "verdict": verdict_document(slot, verdict),
        }
    )
    output.print(one_line(f"{region}[{partition}]@{offset} is {verdict.outcome}: {verdict.detail}"))


def _parkable(view: TaskView, slot: Slot, offset: int) -> LogRecord:
    """The record at ``offset``, if that is where its partition stands.

    UsageProblem FLV-6202 (no such record), FLV-6430 (it has a verdict), FLV-6431 (the partition has not come to it).
    """
    from aggregation.errors import UsageProblem
    from fluvial.reading.verdicts import read_verdicts
    from fluvial.terminal.offsets import Offset, resolve_record
    from schemas.topics import updates_topic

    topic, region, partition = updates_topic(view.task, slot[0]), *slot
    where = f"{topic}[{partition}]@{offset}"
    resolve_record(Offset(offset), view.reader, topic, partition, now_ms=0)
    verdicts = {
        one.offset: one for one in read_verdicts(view.reader, view.task, slot, max(0, offset - 1), offset + 1)
    }
    known = verdicts.get(offset)
    if known is not None:
        raise UsageProblem(
            "FLV-6430",
            f"offset {offset} was folded already, its verdict is {known.outcome}: there is nothing to park",
            where=where,
            hint=f"see where the partition stands with `fluvial status`; "
            f"`fluvial inspect {region} {partition} {offset}` explains the verdict",
        )
    if offset and offset - 1 not in verdicts:
        raise UsageProblem(
            "FLV-6431",
            f"the partition has not come to offset {offset} yet: the offset before it has no verdict either",
            where=where,
            hint="name the offset at which the worker says that it has stopped (FLV-3202); `fluvial status` shows it",
        )
    return next(view.reader.read(topic, partition, offset, offset + 1))


def _description(view: TaskView, record: LogRecord) -> dict[str, Any]:
    """What can be said of a record without relying on code that it may make raise."""
    known: dict[str, Any] = {
        "bytes": len(record.value or b""),
        "key": (record.key or b"").decode(errors="replace"),
    }
    try:
        return known | _signed(view, record)
    except Exception as error:  # it may be the very defect: the record can be parked all the same  # noqa: BLE001
        return known | {"problem": f"it cannot be read: {type(error).__name__}: {error}"}


def _signed(view: TaskView, record: LogRecord) -> dict[str, str]:
    from aggregation.fold.events import RejectedRecord
    from schemas.avro import CodecError
    from schemas.envelope import read_envelope
    from schemas.records import authenticate

    try:
        envelope = read_envelope(record.value or b"", view.trust.rules)
    except CodecError as error:
        return {"problem": str(error)}
    signer = authenticate(envelope, record.timestamp_ms, view.trust)
    if isinstance(signer, RejectedRecord):
        return {"kind": envelope.kind, "problem": signer.because.text}
    return {"kind": envelope.kind, "signer": signer.name, "role": signer.role.value}


def _sentence(record: LogRecord, what: dict[str, Any]) -> str:
    parts = [f"{record.topic}[{record.partition}]@{record.offset}, {what['bytes']} bytes"]
    if "kind" in what:
        parts.append(f"a {what['kind']}")
    if "signer" in what:
        parts.append(f"signed by the {what['role']} {what['signer']}")
    elif what["key"]:
        parts.append(f"key {what['key']!r}")
    if "problem" in what:
        parts.append(what["problem"])
    return ", ".join(parts)


def _await_parked(
    output: Output, view: TaskView, slot: Slot, offset: int, *, position: Position, timeout_s: float
) -> Verdict:
    """The verdict ``skipped`` at ``offset``, once a worker has published it.

    TimeoutProblem FLV-6432 (no verdict in time), Finding FLV-6433 (a worker could fold the record after all).
    """
    from aggregation.errors import Finding, TimeoutProblem
    from aggregation.fold.rejections import PARKED

    where = f"{position.topic}[{position.partition}]@{offset}, its Skip at {position.offset}"
    with output.waiting(f"a worker of {slot[0]} to park offset {offset}") as waiting:
        verdict = verdict_within(view, slot, offset, timeout_s, waiting)
    if verdict is None:
        raise TimeoutProblem(
            "FLV-6432",
            f"the Skip is in the log, but no worker has come to it within {timeout_s:g} s",
            where=where,
            hint="see with `fluvial status` whether a worker of the region runs; it obeys the Skip when it comes to it",
        )
    if verdict.outcome != PARKED:
        raise Finding(
            "FLV-6433",
            f"nothing was parked: a worker could fold offset {offset} after all, it is {verdict.outcome}",
            where=where,
            hint="nothing is left to do: the Skip changes nothing",
        )
    return verdict
