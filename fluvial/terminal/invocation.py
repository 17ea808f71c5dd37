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

import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backends.environment import load_settings, resolve_home
from backends.settings import Settings
from fluvial.terminal.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")


@dataclass
class Invocation:
    """One run of the ``fluvial`` command."""

    home_option: Path | None = None
    show_traceback: bool = False
    output: Output = field(default_factory=Output)

    @property
    def home(self) -> Path:
        """The folder of local state, absolute. It need not exist."""
        return resolve_home(self.home_option)

    @property
    def command(self) -> str:
        """How to call ``fluvial`` again with the same home, for commands that are printed to be copied."""
        home = "" if self.home_option is None else f" --home {shlex.quote(str(self.home_option))}"
        return program() + home

    def settings(self) -> Settings:
        """The settings of the running stack, or FLV-1001."""
        return load_settings(self.home_option)


def program() -> str:
    """The word that calls this ``fluvial`` from the user's shell: a path unless its PATH finds this very one."""
    called = Path(sys.argv[0])
    found = shutil.which("fluvial")
    if called.name != "fluvial" or not called.is_file() or (found and called.samefile(found)):
        return "fluvial"
    path = called.absolute()
    short = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(short))


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # click's signature  # noqa: FBT001
    if value:
        context.ensure_object(Invocation).output.json = True


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
