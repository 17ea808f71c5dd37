"""``fluvial tap`` and ``fluvial parquet``: the metrics topic for people who analyse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from schemas.metrics import KINDS

if TYPE_CHECKING:
    from fluvial.export.tap import Format

task_option = click.option("--task", help="Default: the newest on this machine.")
since_option = click.option(
    "--since", help="10m, or an offset: 120394, @start, @end, @-10m, @2026-11-22T10:00."
)


@click.command()
@task_option
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only this kind; may be repeated."
)
@click.option("--region", help="Only records of this region.")
@since_option
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="json: one record a line. csv: one field a row.",
)  # fmt: skip
@click.option(
    "--follow/--no-follow", default=True, show_default=True, help="Go on with what comes, until Ctrl-C."
)
@click.option("--max", "records_max", type=click.IntRange(1), help="End after so many records.")
@json_option
@pass_invocation
def tap(
    invocation: Invocation,
    *,
    task: str | None,
    kinds: tuple[str, ...],
    region: str | None,
    since: str | None,
    form: Format,
    follow: bool,
    records_max: int | None,
) -> None:
    """Follow the metrics topic. With --json: one record a line, the last is terminal."""
    from fluvial.export.tap import MetricTap, since_point
    from fluvial.reading.task_view import open_task

    start = since_point(since or ("@end" if follow else "@start"))
    with open_task(invocation, task) as view:
        if region is not None:
            view.slot(region, 0)
        shown_as: Format = "json" if invocation.output.json else form
        stream = MetricTap(
            view.reader, view.task, invocation.output,
            form=shown_as, kinds=kinds, region=region, records_max=records_max,
        )  # fmt: skip
        stream.run(start, follow=follow)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@task_option
@click.option("--topic", type=click.Choice(["metrics", "verdicts"]), default="metrics", show_default=True)
@click.option("--format", "form", type=click.Choice(["parquet"]), default="parquet", show_default=True)
@since_option
@json_option
@pass_invocation
def parquet(
    invocation: Invocation, out: Path, *, task: str | None, topic: str, form: str, since: str | None
) -> int:
    """Write a topic to Parquet files in the folder OUT. Run it again to add what came since."""
    del form  # there is one
    from fluvial.export.parquet import export_topics
    from fluvial.export.tap import since_point
    from fluvial.reading.task_view import open_task

    start = since_point(since or "@start")
    with open_task(invocation, task) as view:
        done = export_topics(view, topic, start, out, invocation.output)
    invocation.output.document(done.document())
    columns = ["topic", "partition", "from", "to", "records", "written", "kept", "gaps"]
    invocation.output.table(columns, [one.row() for one in done.partitions])
    for one in done.partitions:
        for first, following in one.gaps:
            invocation.output.say(
                f"gap: {one.topic}[{one.partition}] offsets {first} to {following - 1} are in no file"
            )
    if done.unreadable:
        invocation.output.say(
            f"{done.unreadable} records could not be read as rows: they have their offset and `extra` only"
        )
    return 0
