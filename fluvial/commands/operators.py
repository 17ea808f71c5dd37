"""``fluvial status``, ``versions``, ``lineage``, ``verdicts``, ``inspect``, ``audit``: what operators look with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from aggregation.errors import UsageProblem
from aggregation.fold.rejections import OUTCOMES
from fluvial.commands.edge_options import EdgeOptions, edge_options
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, metrics_options
from fluvial.processes.observing import observing
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.numbers import POSITIVE

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from fluvial.proof.audit import AuditReport
    from fluvial.reading.lineage import Lineage
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output

SHORT_HASH: Final = 12
_ORDINARY_REASONS: Final = frozenset({"genesis", "version"})

task_option = click.option("--task", "task_name", help="Default: the newest on this machine.")


@click.command()
@task_option
@json_option
@pass_invocation
def status(invocation: Invocation, task_name: str | None) -> None:
    """What runs, how far it is, what lags."""
    from fluvial.commands.health_word import health_now, show_health
    from fluvial.commands.operator_views import show_status
    from fluvial.reading.status import read_status
    from fluvial.reading.task_view import open_task

    with open_task(invocation, task_name) as view:
        found = read_status(view)
        health = health_now(found)
    invocation.output.document(found.document() | {"health": health})
    show_health(invocation.output, health)
    show_status(invocation.output, found)


@click.command()
@task_option
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="How many, from the newest.",
)
@json_option
@pass_invocation
def versions(invocation: Invocation, task_name: str | None, limit: int) -> None:
    """List the model's versions, the newest last."""
    from fluvial.commands.operator_views import duration
    from fluvial.reading.quality import in_digits
    from fluvial.reading.task_view import open_task
    from fluvial.reading.versions import read_versions
    from schemas.task_metric import LOSS

    with open_task(invocation, task_name) as view:
        head = view.head()
        found, quality = read_versions(view, max(0, head - limit + 1), head)
        total = head + 1
    output = invocation.output
    output.document(
        {
            "task": view.task,
            "total": total,
            "shown": len(found),
            "metric": quality.document(),
            "versions": [one.document() for one in found],
        }
    )
    names = [name for name in quality.names if name in {quality.name, LOSS}] or [quality.name]
    special = any(one.reason not in _ORDINARY_REASONS for one in found)
    late = any(one.lateness for one in found)
    rows = [
        (
            one.version,
            one.accepted,
            one.refused,
            "" if one.staleness_mean is None else f"{one.staleness_mean:.2f}, max {one.staleness_max}",
            "" if one.created_at_ms is None else duration(max(0.0, time.time() - one.created_at_ms / 1000)),
            *("" if name not in one.metrics else in_digits(one.metrics[name]) for name in names),
            one.model_sha256[:SHORT_HASH],
            *([one.lateness] if late else []),
            *([one.reason] if special else []),
        )
        for one in found
    ]
    columns = ["version", "accepted", "refused", "staleness", "age", *names, "model"]
    output.table([*columns, *(["late"] if late else []), *(["reason"] if special else [])], rows)
    if (best := quality.best()) is not None:
        output.print(f"best {quality.name} {in_digits(best[1])} at version {best[0]}")
    if len(found) < total:
        output.print(f"showing {len(found)} of {total}   (--limit)")


@click.command()
@click.argument("version", type=click.IntRange(0))
@task_option
@click.option(
    "--refold", is_flag=True, help="From the signed updates, folded again, instead of from the verdicts."
)
@json_option
@pass_invocation
def lineage(invocation: Invocation, version: int, *, task_name: str | None, refold: bool) -> int:
    """Which updates, with which weights, made VERSION."""
    from fluvial.reading.lineage import lineage_of
    from fluvial.reading.task_view import open_task

    with (
        open_task(invocation, task_name) as view,
        invocation.output.waiting(f"the lineage of version {version}"),
    ):
        found = lineage_of(view, version, refold=refold)
    invocation.output.document(found.document())
    _show_lineage(invocation.output, found)
    for problem in found.problems:
        invocation.output.say(f"not consistent: {problem}", style="bold red")
    if found.problems:
        invocation.output.say(
            "error[FLV-6207]: what the records say and what the manifest says do not agree\n"
            "hint: run `fluvial audit`, and `fluvial lineage --refold` to see what the signed updates say"
        )
    return 1 if found.problems else 0


def _show_lineage(output: Output, found: Lineage) -> None:
    manifest = found.manifest
    output.print(f"version {manifest.version}: {manifest.accepted} updates, model {manifest.model_sha256}")
    output.print(
        f"parent {manifest.parent_sha256}   policy {manifest.policy_sha256[:SHORT_HASH]}   from {found.source}"
    )
    if found.origin is not None:
        origin = found.origin
        begun = f"lineage {origin.version} --task" if origin.version else "task show"
        output.print(
            f"origin {origin.task}@{origin.version}, manifest {origin.manifest_sha256[:SHORT_HASH]}: this task began "
            f"with its model   (`fluvial {begun} {origin.task}`)"
        )
    rows = [
        (
            str(tile),
            one.offset,
            one.device_id,
            one.base_version,
            one.staleness,
            f"{one.weight / 65536:.4f}",
            f"{one.clip:.4f}",
            f"{found.share(tile, one):.6f}",
        )
        for tile in found.tiles
        for one in tile.contributors
    ]
    for tile in found.tiles:
        if said := found.lateness_of(tile):
            output.print(said)
        for one in tile.edges:
            output.print(f"{tile} holds {one.detail}, at offset {one.offset}")
    if found.merge:
        output.print(f"shares are before the merge {found.merge}, which weighs buckets of updates besides")
    output.table(["window", "offset", "device", "base", "staleness", "weight", "clip", "share"], rows)


@click.command()
@task_option
@click.option("--region", help="Which region. Default: all of them.")
@click.option("--partition", type=click.IntRange(0), help="Of the region. Default: all of them.")
@click.option(
    "--from", "span", metavar="OFFSETS", help="120394, @start, @-10m, @2026-11-22T10:00, or a range a:b."
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only this outcome.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many; with --follow, stop after these only if given.",
)
@json_option
@pass_invocation
@click.pass_context
def verdicts(
    context: click.Context,
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str | None,
    partition: int | None,
    span: str | None,
    follow: bool,
    outcome: str | None,
    limit: int,
) -> None:
    """What became of each update, and why. With --json: one line a verdict, the last is terminal."""
    from fluvial.reading.task_view import open_task
    from fluvial.reading.verdict_stream import VerdictStream
    from fluvial.terminal.offsets import parse_range

    asked = parse_range(span) if span else None
    unbounded = follow and context.get_parameter_source("limit") is click.core.ParameterSource.DEFAULT
    with open_task(invocation, task_name) as view:
        stream = VerdictStream(
            view,
            _slots(view, region, partition),
            invocation.output,
            outcome=outcome,
            limit=None if unbounded else limit,
        )
        stream.run(asked, follow=follow)


def _slots(view: TaskView, region: str | None, partition: int | None) -> list[Slot]:
    """The partitions that were asked for: one, a region's, or all."""
    if region is None:
        if partition is not None:
            raise UsageProblem(
                "FLV-6001",
                f"--partition {partition} needs a region",
                hint=f"name one of {', '.join(view.genesis.partitions)} with `fluvial verdicts --region R`",
            )
        return list(view.genesis.slots)
    if partition is not None:
        return [view.slot(region, partition)]
    view.slot(region, 0)
    return [(region, number) for number in range(view.genesis.partitions[region])]


@click.command()
@click.argument("region")
@click.argument("partition", type=click.IntRange(0))
@click.argument("offset")
@task_option
@json_option
@pass_invocation
def inspect(invocation: Invocation, region: str, partition: int, offset: str, task_name: str | None) -> None:
    """Decode the record at OFFSET and explain its verdict. OFFSET may also be @start, @-10m, @2026-11-22T10:00."""
    from fluvial.reading.inspection import inspect_record
    from fluvial.reading.task_view import open_task
    from fluvial.terminal.offsets import parse_point, resolve_record
    from schemas.topics import updates_topic

    point = parse_point(offset)
    with open_task(invocation, task_name) as view:
        slot = view.slot(region, partition)
        topic = updates_topic(view.task, region)
        number = resolve_record(point, view.reader, topic, partition, now_ms=round(time.time() * 1000))
        found = inspect_record(view, slot, number)
    invocation.output.document(found)
    if not invocation.output.json:
        from fluvial.reading.inspection_text import lines_of

        for line in lines_of(found):
            invocation.output.print(line)


@click.command()
@task_option
@click.option(
    "--from",
    "first",
    type=int,
    default=1,
    show_default=True,
    metavar="V",
    help="First version; trusts the one before it.",
)
@click.option("--to", "last", type=int, metavar="V", help="Last version. Default: the head.")
@click.option(
    "--genesis",
    metavar="SHA256",
    help="The genesis document to trust. Default: the one that this machine knows.",
)
@click.option("--jobs", type=int, metavar="N", help="Processes. Default: one a core.")
@edge_options
@click.option(
    "--every",
    "every_s",
    type=POSITIVE,
    metavar="SECONDS",
    help="Again and again, from one beginning to the next, until Ctrl-C. One line an audit.",
)
@click.option("--run-id", hidden=True, help="What this audit is called in the history: the console's own.")
@metrics_options
@json_option
@pass_invocation
def audit(
    invocation: Invocation,
    *,
    task_name: str | None,
    first: int,
    last: int | None,
    genesis: str | None,
    jobs: int | None,
    edges: EdgeOptions,
    every_s: float | None,
    run_id: str | None,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Recompute versions from the signed logs and compare everything bit for bit. Exit code 1 when anything differs."""
    from backends.kafka.admin import require_broker
    from fluvial.proof.audit import audit_task
    from fluvial.proof.audit.repeated import audit_again_and_again
    from fluvial.proof.audit.request import task_to_audit

    settings = invocation.settings()
    file = task_to_audit(invocation.home, task_name, genesis)
    output = invocation.output

    def once() -> AuditReport:
        require_broker(settings)
        report = audit_task(
            settings, file, first=first, last=last, jobs=jobs, output=output, edges=edges.asked(settings)
        )
        _remember(invocation, report, run_id)
        return report

    if every_s is None:
        return _show_audit(output, once())
    identity, options = (
        ProcessIdentity(file.task, "auditor", "auditor"),
        MetricsOptions(metrics_port, not no_metrics),
    )
    with observing(settings, identity, options, say=output.say, warn=output.say) as observer:
        return audit_again_and_again(once, every_s=every_s, output=output, observer=observer)


def _remember(invocation: Invocation, report: AuditReport, run_id: str | None) -> None:
    """The console shows it as well."""
    from fluvial.reading.audit_history import new_id, record_of, remember

    command = f"{invocation.command} audit --task {report.task} --from {report.first} --to {report.last}"
    record = record_of(report.document(), run_id=run_id or new_id(), command=command)
    problem = remember(invocation.home, report.task, record)
    if problem:
        invocation.output.say(f"note: this audit is not in the history: {problem}")


def _show_audit(output: Output, report: AuditReport) -> int:
    from fluvial.commands.operator_views import show_audit

    output.document(report.json_document())
    show_audit(output, report)
    if report.identical:
        return 0
    if not output.json:
        report.require_identical()
    output.say(f"error[FLV-5001]: the audit found differences: {report.findings.total}")
    return 1
