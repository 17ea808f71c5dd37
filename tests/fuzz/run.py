"""`make fuzz RECORDS=100000 SEED=1`: bad records at ten times the rate of honest ones, through the real pipeline."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests.fuzz.campaign import Campaign, Report

SHOWN_MAX = 20
PROGRESS_EVERY = 1000


@click.command()
@click.option(
    "--records", default=100_000, show_default=True, type=click.IntRange(min=500), help="Bad records."
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same mutations.")
@click.option(
    "--per-second",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(min=1.0),
    help="Bad records a second.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(*, records: int, seed: int, per_second: float, as_json: bool) -> None:
    """Publish mutated records beside honest traffic on a stack of its own, then check every verdict.

    Exit code 0 when every promise held, 1 with findings. Nothing is left behind.
    """
    output = Output()

    def progress(done: int) -> None:
        if done % PROGRESS_EVERY == 0 or done == records:
            output.say(f"{done} of {records} bad records published")

    with tempfile.TemporaryDirectory(prefix="fluvial-fuzz-") as name:
        folder = Path(name)
        stack = LocalStack(folder / "home", reporter=output, secured=False)
        settings = stack.up()
        try:
            report = Campaign(settings, folder, records=records, seed=seed, per_second=per_second).run(
                progress
            )
        finally:
            stack.down()
    click.echo(json.dumps(report.document(), indent=2) if as_json else text(report))
    sys.exit(1 if report.findings else 0)


def text(report: Report) -> str:
    """The report for people."""
    lines = [
        f"{report.records} bad and {report.honest} honest records in {report.seconds:.0f} s, seed {report.seed}",
        "outcomes      " + ", ".join(f"{name} {count}" for name, count in report.outcomes.most_common()),
        (
            f"honest wait   p50 {report.latency_p50_s:.2f} s, p99 {report.latency_p99_s:.2f} s, "
            f"max {report.latency_max_s:.2f} s"
        ),
        f"versions      {report.versions}, audit {'identical' if report.identical else 'DIFFERS'}",
    ]
    for name, thirds in report.memory.items():
        lines.append(f"{name:<13} " + ", ".join(f"{part} {value:.0f}" for part, value in thirds.items()))
    lines += [f"finding       {finding}" for finding in report.findings[:SHOWN_MAX]]
    lines.append("no findings" if not report.findings else f"{len(report.findings)} findings")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
