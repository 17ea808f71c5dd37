"""``fluvial track``: a task's versions told to experiment trackers."""

from __future__ import annotations

import contextlib
import sys

import click

from fluvial.terminal.invocation import Invocation, json_option, pass_invocation


@click.command()
@click.option("--task", help="Default: the newest on this machine.")
@click.option(
    "--to",
    "named",
    multiple=True,
    required=True,
    metavar="TRACKER[=PLACE]",
    help="mlflow, mlflow=http://HOST:PORT, tensorboard=DIR, or your own: mine.py:Name. May be repeated.",
)
@click.option(
    "--follow/--no-follow", default=False, show_default=True, help="Go on with what comes, until Ctrl-C."
)
@json_option
@pass_invocation
def track(invocation: Invocation, *, task: str | None, named: tuple[str, ...], follow: bool) -> None:
    """Tell an experiment tracker of every version: its metrics, updates and policy.

    Telling it again adds what is new.
    """
    from fluvial.reading.task_view import open_task
    from fluvial.tracking.table import open_tracker
    from fluvial.tracking.telling import tell
    from fluvial.tracking.tracker import TrackedVersion

    trackers = {name: open_tracker(name) for name in named}
    count = 0

    def on_told(version: TrackedVersion) -> None:
        nonlocal count
        count += 1
        if follow:
            metrics = "  ".join(f"{name} {value:.4g}" for name, value in sorted(version.metrics.items())[:4])
            invocation.output.say(f"version {version.version}  {metrics}")

    with open_task(invocation, task) as view:
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # trackers like to talk, and stdout is for what was asked
            last = tell(view, trackers, follow=follow, on_told=on_told)
        invocation.output.document(
            {"task": view.task, "trackers": list(named), "version": last, "told": count}
        )
        invocation.output.print(f"told {', '.join(named)} of {count} versions of {view.task}, up to {last}")
