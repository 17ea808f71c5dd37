"""What ``fluvial run`` needs to take a Flower app: which, and the interpreter in which it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.commands.run_plan import Options
    from fluvial.terminal.output import Output

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")


def _use(_context: click.Context, _parameter: click.Parameter, python: Path | None) -> None:
    from backends.environment import use_flower_python

    if python is not None:
        use_flower_python(python)


def flower_options(function: _Function) -> _Function:
    """Add what names a Flower app, and its interpreter."""
    for option in (
        click.option(
            "--flower-python", type=click.Path(path_type=Path, exists=True, dir_okay=False), expose_value=False,
            callback=_use, metavar="PATH",
            help="The interpreter that has flwr and what the app needs. Default: FLUVIAL_FLOWER_PYTHON, else this.",
        ),
        click.option(
            "--flower-server", default="", metavar="MODULE:ATTRIBUTE",
            help="The app's ServerApp. Default: what its pyproject.toml says.",
        ),
        click.option(
            "--flower", metavar="APP",
            help="Instead of FILE: a Flower app, by module:attribute of its client or by its folder. A task file is "
            "written beside it.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def task_file_asked(file: str | None, options: Options, output: Output) -> str:
    """The task file to run: FILE, or that of the Flower app. UsageProblem FLV-6001 where it is neither or both."""
    flower = options["flower"]
    if (file is None) == (flower is None):
        raise UsageProblem(
            "FLV-6001",
            "name a task file or a Flower app, and not both" if file else "nothing says what to train",
            hint="`fluvial run FILE`, `fluvial run digits`, or `fluvial run --flower package.client_app:app`",
        )
    if file is not None:
        return file
    from fluvial.flower.files import find_app, write_task_of

    assert flower is not None
    path, written = write_task_of(find_app(flower, options["flower_server"]), options["devices"])
    shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    if written:
        output.say(f"wrote {shown}, the app as a task: `fluvial run {shown}` is the same from now on")
    return shown
