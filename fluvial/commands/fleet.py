"""``fluvial fleet``: many devices in one process, against a running task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aggregation.codecs import CODECS, DEFAULT_CODEC
from fluvial.commands.tasks import task_option
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, metrics_options
from fluvial.processes.observing import observing
from fluvial.processes.signals import EXIT_INTERRUPTED, stop_on_signals
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation, traceback_option
from fluvial.terminal.numbers import NOT_NEGATIVE, POSITIVE
from fluvial.terminal.run_options import alpha_option


@click.command()
@task_option
@click.option(
    "--devices",
    type=click.IntRange(1),
    show_default="40, or one for each part of the data",
    help="How many, all included.",
)
@click.option(
    "--attackers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="So many flip signs or send noise.",
)
@click.option(
    "--misbehaving",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="So many break the rules at times.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@alpha_option
@click.option(
    "--round-seconds",
    "round_s",
    type=NOT_NEGATIVE,
    default=0.2,
    show_default=True,
    help="Median pause of a round.",
)
@click.option(
    "--speed-spread",
    type=NOT_NEGATIVE,
    default=0.5,
    show_default=True,
    help="Sigma of the devices' log-normal speeds.",
)
@click.option("--codec", type=click.Choice(list(CODECS)), default=DEFAULT_CODEC, show_default=True)
@click.option("--seconds", "seconds_max", type=POSITIVE, help="Stop after so long. Default: never.")
@click.option(
    "--versions", "version_max", type=click.IntRange(0), help="Stop when this version is announced."
)
@click.option("--updates", "updates_max", type=click.IntRange(1), help="Stop after so many records.")
@click.option(
    "--journal", type=click.Path(path_type=Path, dir_okay=False), help="Append each acknowledged record here."
)
@metrics_options
@traceback_option
@json_option
@pass_invocation
def fleet(
    invocation: Invocation,
    /,
    *,
    task_name: str | None,
    journal: Path | None,
    devices: int | None,
    metrics_port: int,
    no_metrics: bool,
    **config: Any,
) -> int:
    """Drive many devices. Ctrl-C or SIGTERM: no more rounds, deliver what is under way, then a summary."""
    from backends.tasks import read_task_file
    from producers.fleet.fleet import Fleet
    from producers.fleet.population import FleetConfig

    settings = invocation.settings("device")
    file = read_task_file(invocation.home, task_name)
    say, options = invocation.output.say, MetricsOptions(metrics_port, not no_metrics)
    identity = ProcessIdentity(file.task, "fleet", "fleet")
    with observing(settings, identity, options, say=say, warn=say) as observer:
        runner = Fleet(
            settings,
            file,
            FleetConfig(parts_decide=True, **config)
            if devices is None
            else FleetConfig(devices=devices, **config),
            speaker=invocation.output,
            journal=journal,
            observer=observer,
        )
        interrupted = stop_on_signals(observer.ending, runner.stop)
        summary = runner.run()
    invocation.output.document({"task": file.task, **summary.document()})
    rows = [(behaviour, count) for behaviour, count in summary.published.items()]
    invocation.output.table(["behaviour", "records"], rows)
    rate = summary.document()["updates_per_second"]
    invocation.output.print(
        f"{summary.updates} records acknowledged in {summary.seconds:.1f} s ({rate}/s), {summary.failed} failed"
    )
    for reason, times in summary.declined.items():
        invocation.output.print(f"took no part {times} times: {reason}")
    for cause in summary.failed_rounds.causes:
        invocation.output.print(f"failed: {cause.line()}")
    invocation.output.print(
        f"what became of them: `{invocation.command} status`, `{invocation.command} verdicts`"
    )
    return EXIT_INTERRUPTED if interrupted.is_set() else 0
