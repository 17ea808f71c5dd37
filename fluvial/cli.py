"""The ``fluvial`` command: a table of commands that load when they are called, and one way out for every error.

Exit codes: 0 ok, 1 a finding, 2 connection or machine, 3 timeout, 4 usage, 5 a defect of ours, 130
interrupted.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
import click.shell_completion
import click.utils

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from backends.environment import keep_compiled_code, keep_other_caches, variables_that_nobody_reads
from backends.shown import printable
from fluvial.extras import EXTRAS_OF_COMMANDS, OF_OPTIONS, extra_with
from fluvial.processes.signals import EXIT_INTERRUPTED, is_interruption
from fluvial.terminal import streams
from fluvial.terminal.invocation import Invocation
from fluvial.terminal.machine_errors import of_the_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_DEFECT: Final = 5
_FOLDER_IS_GONE: Final = UsageProblem(
    "FLV-1022", "the current folder has been deleted", hint="go to another one: `cd ~`"
)
_KERNELS: Final = Path(__file__).parents[1] / "aggregation" / "codecs" / "kernels.py"


class Entry(NamedTuple):
    """Where a command lives, and its line in the overview, so that the overview loads no command."""

    target: str
    section: str
    summary: str


_START, _STACK, _RUN, _LOOK = "Start here", "Local stack", "Run the parts", "Look inside"

COMMANDS: Final[dict[str, Entry]] = {
    "demo": Entry(
        "fluvial.commands.demo:demo", _START, "Train, attack and audit a federation on this machine."
    ),
    "new": Entry(
        "fluvial.commands.run:new", _START, "Write a task file to edit: your model in three functions."
    ),
    "run": Entry("fluvial.commands.run:run", _START, "Train a task file on the local stack."),
    "simulate": Entry(
        "fluvial.commands.simulate:simulate", _START, "Simulate a crowd of devices in virtual time."
    ),
    "compare": Entry(
        "fluvial.commands.compare:compare", _START, "Train policies side by side on the same crowd."
    ),
    "up": Entry("fluvial.commands.stack:up", _STACK, "Start Kafka and the object store on this machine."),
    "down": Entry("fluvial.commands.stack:down", _STACK, "Stop them; data stays."),
    "doctor": Entry(
        "fluvial.commands.stack:doctor", _STACK, "Check this machine and the stack, with how to mend each."
    ),
    "config": Entry("fluvial.commands.stack:config", _STACK, "Show settings and where each comes from."),
    "task": Entry("fluvial.commands.tasks:task", _RUN, "Create, show, stop and remove training tasks."),
    "ca": Entry(
        "fluvial.commands.certificates:ca", _RUN, "Make a region's certificate authority, issue certificates."
    ),
    "revoke": Entry(
        "fluvial.commands.certificates:revoke", _RUN, "Bar a device, or anybody's certificate, from a task."
    ),
    "park": Entry("fluvial.commands.park:park", _RUN, "Park a record that makes the fold itself raise."),
    "pardon": Entry("fluvial.commands.pardon:pardon", _RUN, "End a device's quarantine."),
    "worker": Entry("fluvial.commands.processes:worker", _RUN, "Run a regional worker."),
    "edge": Entry(
        "fluvial.commands.edges:edge",
        _RUN,
        "Run an edge: aggregate devices' updates near them, publish one upward.",
    ),
    "merger": Entry("fluvial.commands.processes:merger", _RUN, "Run the global merger."),
    "evaluator": Entry(
        "fluvial.commands.processes:evaluator", _RUN, "Evaluate every version on held-out data."
    ),
    "guardian": Entry(
        "fluvial.commands.processes:guardian", _RUN, "Guide a task by a trusted root set, against poisoning."
    ),
    "fleet": Entry("fluvial.commands.fleet:fleet", _RUN, "Drive many devices."),
    "device": Entry("fluvial.commands.devices:device", _RUN, "Fetch, train and publish as one device."),
    "status": Entry("fluvial.commands.operators:status", _LOOK, "What runs, how far it is, what lags."),
    "model": Entry("fluvial.commands.models:model", _LOOK, "Get a version's model as a file."),
    "versions": Entry("fluvial.commands.operators:versions", _LOOK, "List the model's versions."),
    "lineage": Entry(
        "fluvial.commands.operators:lineage", _LOOK, "Which updates, with which weights, made a version."
    ),
    "verdicts": Entry("fluvial.commands.operators:verdicts", _LOOK, "What became of each update, and why."),
    "devices": Entry(
        "fluvial.commands.suspects:devices", _LOOK, "Which devices are suspected, why, and since when."
    ),
    "logs": Entry("fluvial.commands.logs:logs", _LOOK, "What a task's processes have logged here."),
    "tap": Entry("fluvial.commands.analysts:tap", _LOOK, "Follow the metrics topic."),
    "parquet": Entry(
        "fluvial.commands.analysts:parquet", _LOOK, "Write metrics or verdicts to Parquet files."
    ),
    "track": Entry("fluvial.commands.track:track", _LOOK, "Tell MLflow or TensorBoard of every version."),
    "inspect": Entry(
        "fluvial.commands.operators:inspect", _LOOK, "Decode one record and explain its verdict."
    ),
    "audit": Entry(
        "fluvial.commands.operators:audit", _LOOK, "Recompute versions from the logs, compare bit for bit."
    ),
    "canary": Entry(
        "fluvial.commands.canary:canary",
        _LOOK,
        "Publish updates whose verdict is known, and expect it in time.",
    ),
    "console": Entry("fluvial.commands.console:console", _LOOK, "Serve a live page on a task."),
    "chaos": Entry(
        "fluvial.commands.chaos:chaos",
        _LOOK,
        "Break a stack of its own while devices publish, then check it.",
    ),
    "arena": Entry(
        "fluvial.commands.arena:arena", _LOOK, "Let attacks meet defences, and see what each is worth."
    ),
    "completion": Entry("fluvial.cli:completion", _LOOK, "Print shell completion for bash, zsh or fish."),
}

OVERVIEW: Final = (
    ("fluvial new mine", "Write mine.py, a working task to edit."),
    ("fluvial run mine.py --simulate", "Train it in this process, in seconds."),
    ("fluvial run mine.py", "The same file on Kafka and an object store, signed and audited."),
)
ALIASES: Final = {"skip": "park", "export": "parquet"}
"""Earlier names of commands: they work, and are listed nowhere."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used: the overview and completion stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # click's signature  # noqa: ARG002
        """Every name, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # click's signature  # noqa: ARG002
        """Import the command behind a name."""
        name = ALIASES.get(cmd_name, cmd_name)
        entry = COMMANDS.get(name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            message = f"{entry.target} is {type(command).__name__}, not a click command"
            raise TypeError(message)
        from fluvial.examples import add_examples

        add_examples(command, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest names when there is no such command."""
        import difflib

        if args and args[0] not in {**COMMANDS, **ALIASES} and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=2)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            message = f"No such command {args[0]!r}.{meant}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The overview by section, from the table alone."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(name, entry.summary) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """How to begin. Plain text: the overview loads no command."""
        with formatter.section("Examples"):
            formatter.write_dl(OVERVIEW)


def _version() -> str:
    return importlib.metadata.version("fluvial")


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not context.resilient_parsing:
        click.echo(f"fluvial {_version()}")
        context.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="Local state. Default: ./.fluvial"
)
@click.option(
    "--traceback",
    is_flag=True,
    help="With an error in a task's code, show the way to its line; show a defect's traceback.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def cli(context: click.Context, *, home: Path | None, traceback: bool) -> None:
    """Federated learning on the log: every checkpoint is a pure function of signed logs."""
    invocation = context.ensure_object(Invocation)
    invocation.home_option = home
    invocation.output.called = invocation.command
    invocation.traceback_option = traceback
    if not context.resilient_parsing:
        keep_compiled_code(_KERNELS.parent / "__pycache__")
        keep_other_caches()
        for name, meant in variables_that_nobody_reads().items():
            invocation.output.say(_unread(name, meant))


def _unread(name: str, meant: str) -> str:
    hint = (
        f"did you mean {meant}?" if meant else "docs/operators.md lists those that are read; unset this one"
    )
    return f"warning[FLV-1018]: the variable {name} means nothing to Fluvial\nhint: {hint}"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, for `eval "$(fluvial completion bash)"` in its start file."""
    kind = click.shell_completion.get_completion_class(shell)
    if kind is None:
        message = f"click lost its completion for {shell}"
        raise AssertionError(message)
    click.echo(kind(cli, {}, "fluvial", "_FLUVIAL_COMPLETE").source())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors that leave a command are shown here only."""
    streams.stand_up()
    invocation = Invocation()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        Path.cwd()
    except FileNotFoundError:
        return _refuse(invocation, _FOLDER_IS_GONE)
    try:
        return _main(invocation, argv)
    finally:
        own_stdout = invocation.output.own_stdout
        own_stdout.close() if arguments is None else own_stdout.give_back()


def _main(invocation: Invocation, argv: Sequence[str]) -> int:
    try:
        _sigterm_interrupts()
        outcome = cli.main(list(argv), prog_name="fluvial", standalone_mode=False, obj=invocation)
    except FluvialError as error:
        invocation.output.problem(error, show_traceback=invocation.show_traceback)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(printable(error.format_message()), err=True)
        return UsageProblem.exit_code
    except click.ClickException as error:
        return _usage(invocation, error, argv)
    except (KeyboardInterrupt, click.Abort):
        invocation.output.say("interrupted")
        return EXIT_INTERRUPTED
    except SystemExit:
        # The reader of our output has seen enough (``| head``): no error to us. click has seen the broken pipe,
        # wrapped stdout so that nothing fails at exit, and asks for 1.
        if isinstance(sys.stdout, click.utils.PacifyFlushWrapper):
            return 0
        raise
    except Exception as error:  # the last line of defence, and it says so  # noqa: BLE001
        if is_interruption(error):
            invocation.output.say("interrupted")
            return EXIT_INTERRUPTED
        return _unexpected(invocation, error, argv)
    return outcome if isinstance(outcome, int) and not isinstance(outcome, bool) else 0


def _refuse(invocation: Invocation, problem: FluvialError) -> int:
    invocation.output.problem(problem)
    return problem.exit_code


def _sigterm_interrupts() -> None:
    """SIGTERM ends a command as Ctrl-C does: through its clean-up, a stream's last line included.

    Long-running parts set handlers of their own.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _usage(invocation: Invocation, error: click.ClickException, argv: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else _command_path(argv)
    # Parsing stopped before the flag could act; a command whose --json takes a value (demo) has no such flag.
    if "--json" in argv and (context is None or _has_json_flag(context)):
        invocation.output.json = True
    problem = UsageProblem("FLV-6001", _one_line(error), hint=f"see `{path} --help`")
    invocation.output.problem(problem)
    return problem.exit_code


def _command_path(argv: Sequence[str]) -> str:
    """For errors of the parser, which knows no context: the command as it was typed."""
    return " ".join(["fluvial", *[word for word in argv if word in COMMANDS or word in ALIASES][:1]])


def _unexpected(invocation: Invocation, error: Exception, argv: Sequence[str]) -> int:
    extra = extra_with(error.name) if isinstance(error, ModuleNotFoundError) else None
    refused = of_the_machine(error)
    if refused is not None:
        if invocation.show_traceback:
            traceback.print_exception(error)
        problem = refused
    elif extra is None:
        return _defect(invocation, error)
    else:
        problem = _not_installed(str(getattr(error, "name", "")), extra, argv)
    invocation.output.problem(problem)
    return problem.exit_code


def _not_installed(module: str, extra: str, argv: Sequence[str]) -> EnvironmentProblem:
    """The package was installed without the extra that this command needs."""
    command = next((word for word in argv if word in COMMANDS), "")
    needed = EXTRAS_OF_COMMANDS.get(command, extra)
    if extra in OF_OPTIONS:
        needed = f"{needed},{extra}"
    return EnvironmentProblem(
        "FLV-1030",
        f"`{_command_path(argv)}` needs the package {module.partition('.')[0]}, which is not installed",
        where=f"in {sys.prefix}",
        hint=f"pip install 'fluvial[{needed}]'",
    )


def _has_json_flag(context: click.Context) -> bool:
    options = [option for option in context.command.params if "--json" in option.opts]
    return context.parent is None or any(getattr(option, "is_flag", False) for option in options)


def _one_line(error: click.ClickException) -> str:
    return " ".join(error.format_message().split())


def _defect(invocation: Invocation, error: Exception) -> int:
    text = "".join(traceback.format_exception(error))
    if invocation.show_traceback:
        sys.stderr.write(printable(text))
        where = ""
    else:
        try:
            where = f"traceback in {_write_traceback(invocation, text)}"
        except (OSError, FluvialError):  # there is no place for it
            sys.stderr.write(printable(text))
            where = ""
    problem = FluvialError(
        "FLV-9000",
        f"a defect in Fluvial: {type(error).__name__}: {error}",
        where=where,
        hint="please report it with that file; `fluvial --traceback ...` shows it here",
    )
    invocation.output.problem(problem)
    return EXIT_DEFECT


def _write_traceback(invocation: Invocation, text: str) -> Path:
    name = f"defect-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    logs = invocation.home / "logs"
    folder = logs if logs.is_dir() else Path(tempfile.mkdtemp(prefix="fluvial-"))
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
