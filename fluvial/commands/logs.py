"""``fluvial logs``: what the processes of a task have written on this machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from fluvial.terminal.invocation import Invocation, json_option, pass_invocation

if TYPE_CHECKING:
    from fluvial.reading.logs import LogLine
    from fluvial.terminal.output import Output


@click.command()
@click.option("--task", "task_name", help="Default: the newest on this machine.")
@click.option("--process", "processes", multiple=True, help="Only this one, such as merger; may be repeated.")
@click.option(
    "--lines",
    type=click.IntRange(1, 1_000_000),
    default=40,
    show_default=True,
    help="How many, from the newest.",
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@json_option
@pass_invocation
def logs(
    invocation: Invocation, *, task_name: str | None, processes: tuple[str, ...], lines: int, follow: bool
) -> None:
    """Show what a task's processes have logged here, merged by time. With --json: a line each, the last is terminal."""
    from backends.tasks import read_task_file
    from fluvial.reading.logs import LogTail, log_files

    task = read_task_file(invocation.home, task_name).task
    files = log_files(invocation.home, task, processes)
    tail, output, shown = LogTail(files), invocation.output, 0
    width = max(len(name) for name in files)
    with contextlib.suppress(KeyboardInterrupt):
        for line in tail.last(lines):
            _show(output, line, width)
            shown += 1
        if follow:
            for line_or_none in tail.follow():
                if line_or_none is not None:
                    _show(output, line_or_none, width)
                    shown += 1
    output.line({"task": task, "lines": shown}, terminal=True)


def _show(output: Output, line: LogLine, width: int) -> None:
    output.line({"process": line.process, "at": line.at, "text": line.text})
    output.print(f"{line.process:{width}}  {line.text}")
