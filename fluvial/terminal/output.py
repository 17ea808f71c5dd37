"""What people and programs see: results on stdout, everything else on stderr, and never silence.

With ``--json`` stdout holds exactly one JSON document (or JSON lines, the last with ``"terminal": true``).
Without it, results are text and tables. Colour and boxes only on a terminal, and not with ``NO_COLOR``.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import click
import rich.box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from aggregation.errors import FluvialError, UsageProblem
from backends.shown import one_line, printable
from fluvial.terminal.own_stdout import OwnStdout

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TextIO

WAITING_EVERY_S: Final = 5.0
_COMMAND: Final = re.compile(r"(?:(?<=`)|^)fluvial (?=[a-z])")
"""The beginning of a command in a hint: after a backtick, or the hint is one."""
_PLAIN_WIDTH: Final = 10_000


class Reporter(Protocol):
    """The part of ``Output`` that long-running parts need: they say what they do and what they wait for."""

    def say(self, text: str) -> None:
        """One line of progress."""
        ...

    def waiting(self, what: str) -> contextlib.AbstractContextManager[Waiting]:
        """While the block runs, say every few seconds what it waits for and how long."""
        ...


class Waiting:
    """A wait that a person can follow. ``note`` replaces the detail that the next line shows."""

    def __init__(self, what: str, write: Callable[[str], None], every_s: float) -> None:
        self._what = what
        self._detail = ""
        self._write = write
        self._every_s = every_s
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name=f"waiting: {what}", daemon=True)

    @property
    def seconds(self) -> float:
        """How long the wait has lasted."""
        return time.monotonic() - self._started

    def note(self, detail: str) -> None:
        """What is known by now, such as ``0 of 2 workers have joined``."""
        self._detail = detail

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            detail = f" ({self._detail})" if self._detail else ""
            self._write(f"waiting for {self._what}{detail}, {self.seconds:.0f} s")

    def __enter__(self) -> Waiting:  # final in practice, and Self needs 3.11's typing at run time  # noqa: PYI034
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class _Terminal(Console):
    """A console that shows what others wrote and does not obey it; what rich itself writes for colours is no text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments, each with its text as it may be shown."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class Output:
    """Everything a command shows goes through here. ``json`` is set by the command's ``--json`` flag."""

    def __init__(self, *, json: bool = False, quiet: bool = False, every_s: float = WAITING_EVERY_S) -> None:
        """A ``quiet`` output drops progress (not results): for tests and embedding."""
        self.json = json
        self.called = "fluvial"
        """How this command was called, with its home: what hints tell the user to type begins with it."""
        self._quiet = quiet
        self._every_s = every_s
        self.own_stdout = OwnStdout()
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def stdout(self) -> TextIO:
        """Where results go."""
        return self.own_stdout.stream

    def take_stdout(self) -> None:
        """From now on only this output writes to stdout; what others write there goes to stderr."""
        self.own_stdout.take()
        self.out.file = self.stdout

    def say(self, text: str, style: str = "") -> None:
        """One line of progress, on stderr."""
        if not self._quiet:
            self.err.print(Text(text, style=style), soft_wrap=True)

    def waiting(self, what: str) -> Waiting:
        """A context that says every few seconds what it waits for and how long."""
        return Waiting(what, self.say, self._every_s)

    def print(self, text: str = "", style: str = "") -> None:
        """One line of a human's result, on stdout. Nothing with ``--json``: use ``document`` there."""
        if not self.json:
            self.out.print(Text(text, style=style), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """A table of a human's result, on stdout. Nothing with ``--json``. Cells may be rich ``Text``."""
        if self.json:
            return
        boxed = self.out.is_terminal
        table = Table(
            title=title or None,
            box=rich.box.SIMPLE_HEAD if boxed else None,
            pad_edge=False,
            title_justify="left",
            show_edge=False,
        )
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=not boxed)
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(one_line(str(cell))) for cell in row))
        self.out.print(table)

    def document(self, document: Mapping[str, Any]) -> None:
        """The one JSON document of a command, on stdout. Nothing without ``--json``."""
        if self.json:
            _write_json(self.stdout, document, indent=2)

    def line(self, record: Mapping[str, Any], *, terminal: bool = False) -> None:
        """One JSON line of a stream, on stdout; the last is ``terminal``. Nothing without ``--json``."""
        if self.json:
            _write_json(self.stdout, {**record, "terminal": True} if terminal else record, indent=None)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is destroyed; ``yes`` answers in advance.

        Raises UsageProblem: FLV-6002, there is nobody to ask; FLV-6003, the answer was no.
        """
        if yes:
            return
        if not self.can_ask:
            raise UsageProblem(
                "FLV-6002",
                f"this needs a confirmation, and there is no terminal to ask on: {question}",
                hint="repeat the command with `--yes`",
            )
        if not click.confirm(question, default=False, err=True):
            raise UsageProblem(
                "FLV-6003", "not confirmed, nothing was changed", hint="answer y, or pass `--yes`"
            )

    @property
    def can_ask(self) -> bool:
        """Whether there is somebody at a terminal to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def choose(self, question: str, choices: Sequence[str], *, default: str) -> str:
        """Ask which of ``choices``, each also by its first letter. Only where ``can_ask``."""
        by_letter = {choice[0]: choice for choice in choices}
        answer: str = click.prompt(
            question,
            type=click.Choice([*choices, *by_letter], case_sensitive=False),
            default=default,
            show_choices=False,
            prompt_suffix=f" ({', '.join(choices)}) ",
            err=True,
        )
        return by_letter.get(answer, answer)

    def problem(self, error: FluvialError, *, show_traceback: bool = False) -> None:
        """Show an error: for people on stderr, and with ``--json`` also as the one document on stdout."""
        hint = _COMMAND.sub(lambda _: f"{self.called} ", error.hint)
        if self.json:
            fields = {
                "id": error.error_id,
                "message": error.message,
                "hint": hint,
                "where": error.where,
            }
            _write_json(
                self.stdout,
                {"error": {name: value for name, value in fields.items() if value or name != "where"}},
                indent=2,
            )
        text = Text()
        text.append(f"error[{error.error_id}]", style="bold red").append(f": {error.message}", style="bold")
        if error.where:
            text.append(f"\n  {error.where}")
        if show_traceback and error.users_traceback:
            text.append("\n" + error.users_traceback)
        if hint:
            text.append("\nhint", style="bold cyan").append(f": {hint}")
        self.err.print(text, soft_wrap=True)


def quiet_output() -> Output:
    """An output that drops progress."""
    return Output(quiet=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Off a terminal nothing may be folded: a line is a line, whatever the width of a window somewhere.
    width = None if stream is not None and stream.isatty() else _PLAIN_WIDTH
    return _Terminal(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def _write_json(stdout: TextIO, document: Mapping[str, Any], *, indent: int | None) -> None:
    stdout.write(json.dumps(document, indent=indent, allow_nan=False, default=str) + "\n")
    stdout.flush()
