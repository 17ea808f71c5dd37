"""What every command gets: where it works, how it speaks, and its settings when it asks for them.

::

    @click.command()
    @json_option
    @pass_invocation
    def status(invocation: Invocation) -> None:
        settings = invocation.settings()          # FLV-1001 when the stack is down
        invocation.output.say("reading ...")      # progress: stderr
        invocation.output.document({...})         # --json: the one document on stdout
        invocation.output.table(["name"], rows)   # otherwise: text on stdout
"""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from backends.environment import load_settings, resolve_home, traceback_asked
from backends.settings import Settings, StackRole
from fluvial.terminal.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass
class Invocation:
    """One run of the ``fluvial`` command."""

    home_option: Path | None = None
    traceback_option: bool = False
    output: Output = field(default_factory=Output)

    @property
    def home(self) -> Path:
        """The folder of local state, absolute. It need not exist."""
        return resolve_home(self.home_option)

    @property
    def show_traceback(self) -> bool:
        """Whether to show tracebacks: ``--traceback``, or FLUVIAL_TRACEBACK=1."""
        return self.traceback_option or traceback_asked()

    @property
    def command(self) -> str:
        """How to call ``fluvial`` again with the same home, for commands that are printed to be copied."""
        home = "" if self.home_option is None else f" --home {shlex.quote(str(self.home_option))}"
        return program() + home

    def settings(self, role: StackRole = "reader") -> Settings:
        """The settings of the running stack, or FLV-1001; ``role`` is as whom to speak to its Kafka."""
        return load_settings(self.home_option, role=role)


def program() -> str:
    """The word that calls this ``fluvial`` from the user's shell: a path unless its PATH finds this very one."""
    called = Path(sys.argv[0])
    found = shutil.which("fluvial")
    if called.name != "fluvial" or not called.is_file() or (found and called.samefile(found)):
        return "fluvial"
    path = called.absolute()
    short = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(short))


def pass_invocation(
    function: Callable[Concatenate[Invocation, _Arguments], _Result],
) -> Callable[_Arguments, _Result]:
    """Give a command its Invocation. While it runs, stdout is its own: a user's ``print`` goes to stderr."""

    @functools.wraps(function)
    def command(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        invocation = click.get_current_context().ensure_object(Invocation)
        invocation.output.take_stdout()
        return function(invocation, *args, **kwargs)

    return command


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # click's signature  # noqa: FBT001
    if value:
        context.ensure_object(Invocation).output.json = True


def _set_traceback(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        context.ensure_object(Invocation).traceback_option = True


def traceback_option(function: _Function) -> _Function:
    """Add ``--traceback`` to a command that runs users' code; the command function gets no argument for it."""
    option = click.option(
        "--traceback",
        is_flag=True,
        expose_value=False,
        callback=_set_traceback,
        help="With an error in the task's code, show the way to the line. So does FLUVIAL_TRACEBACK=1.",
    )
    return option(function)


def no_check_option(function: _Function) -> _Function:
    """Add ``--no-check`` to a command that tries a task's code before it does anything else."""
    option = click.option(
        "--no-check", is_flag=True, help="Do not try one batch of train() and evaluate() beforehand."
    )
    return option(function)


def json_option(function: _Function) -> _Function:
    """Add ``--json``: it turns ``Invocation.output`` to JSON; the command function gets no argument for it."""
    option = click.option(
        "--json",
        "json_output",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_json,
        help="One JSON document on stdout; everything else on stderr.",
    )
    return option(function)
