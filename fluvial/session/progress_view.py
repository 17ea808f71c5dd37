"""How a run's progress looks: a live panel on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

import rich.box
from rich.console import Group
from rich.constrain import Constrain
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aggregation.fold.rejections import ACCEPTED
from fluvial.reading.progress import sparkline
from fluvial.reading.quality import in_digits
from schemas.task_metric import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fluvial.processes.supervisor import ChildStatus
    from fluvial.reading.progress import Evaluation, RunFacts
    from fluvial.terminal.output import Output

PLAIN_EVERY_S: Final = 5.0
_REFRESHES_PER_S: Final = 4
_COUNTS_SHOWN: Final = 5
_STYLES: Final = {
    "running": "green",
    "restarting": "yellow",
    "failed": "red",
    "done": "dim",
    "stopped": "dim",
}
_PANEL_WIDTH_MAX: Final = 110
_RIGHT_MARGIN: Final = 2
"""Room for the terminal's own ^C: in the last column it would break the line, and the panel could not be cleared."""
_SIGNS: Final = {"running": "●", "restarting": "◌", "failed": "✗", "done": "✓", "stopped": "○"}


class View(Protocol):
    """Shows a run. ``show`` is called several times a second, and decides itself what to do with that."""

    def show(
        self, phase: str, facts: RunFacts, children: Sequence[ChildStatus], waits: Sequence[str] = ()
    ) -> None:
        """Show the state of the run. ``waits`` says what its first version still waits for."""
        ...

    def finish(self, facts: RunFacts) -> None:
        """Say what became known since the last look: the last version's line, above all."""
        ...


class VersionLines:
    """One line for every version that was evaluated, if ``wanted``."""

    def __init__(self, output: Output, versions: int, *, wanted: bool, first: int = 0) -> None:
        """Those above ``first``: up to there they were told by an earlier run."""
        self._first = first
        self._output = output
        self._versions = versions
        self._wanted = wanted
        self._shown = 0

    def show(self, facts: RunFacts) -> None:
        """Say what is new."""
        for evaluation in facts.curve()[self._shown :] if self._wanted else ():
            self._shown += 1
            if evaluation.version > self._first:
                self._output.say(version_line(evaluation, self._versions, facts.quality().name))


class PlainView:
    """One line when ``every_s`` have passed or the phase has changed; one a version with ``each_version``."""

    def __init__(
        self,
        output: Output,
        versions: int,
        *,
        every_s: float = PLAIN_EVERY_S,
        each_version: bool = False,
        first: int = 0,
    ) -> None:
        self._output = output
        self._versions = versions
        self._every_s = every_s
        self._lines = VersionLines(output, versions, wanted=each_version, first=first)
        self._last = 0.0
        self._phase = ""

    def show(
        self, phase: str, facts: RunFacts, children: Sequence[ChildStatus], waits: Sequence[str] = ()
    ) -> None:
        """See ``View``."""
        self._lines.show(facts)
        now = time.monotonic()
        if phase == self._phase and now - self._last < self._every_s:
            return
        self._phase, self._last = phase, now
        self._output.say(plain_line(phase, self._versions, facts, children, waits))

    def finish(self, facts: RunFacts) -> None:
        """See ``View``."""
        self._lines.show(facts)


class LiveView:
    """A panel that is drawn in place."""

    def __init__(
        self, live: Live, lines: VersionLines, title: str, versions: int, footer: Callable[[], str]
    ) -> None:
        self._live = live
        self._lines = lines
        self._title = title
        self._versions = versions
        self._footer = footer
        self._started = time.monotonic()

    def show(
        self, phase: str, facts: RunFacts, children: Sequence[ChildStatus], waits: Sequence[str] = ()
    ) -> None:
        """See ``View``."""
        self._lines.show(facts)
        seconds = time.monotonic() - self._started
        panel = live_panel(
            self._title,
            phase,
            self._versions,
            facts,
            children,
            seconds=seconds,
            waits=waits,
            footer=self._footer(),
        )
        width = min(self._live.console.width, _PANEL_WIDTH_MAX) - _RIGHT_MARGIN
        self._live.update(Constrain(panel, width))

    def finish(self, facts: RunFacts) -> None:
        """See ``View``."""
        self._lines.show(facts)


@contextlib.contextmanager
def open_view(
    output: Output,
    title: str,
    versions: int,
    *,
    each_version: bool = False,
    first: int = 0,
    footer: Callable[[], str] = str,
) -> Iterator[View]:
    """The view that suits the output: live on a terminal, plain elsewhere.

    Versions above ``first`` have lines of their own with ``each_version``.
    ``footer`` is asked at every look what else a panel should go on showing, such as an address.
    """
    if not output.err.is_terminal:
        yield PlainView(output, versions, each_version=each_version, first=first)
        return
    with Live(console=output.err, refresh_per_second=_REFRESHES_PER_S, transient=True) as live:
        lines = VersionLines(output, versions, wanted=each_version, first=first)
        yield LiveView(live, lines, title, versions, footer)


def version_line(evaluation: Evaluation, versions: int, name: str) -> str:
    """``version 7/20  r2 0.8712  loss 0.4210``: the metric ``name``, and the loss."""
    parts = [f"version {evaluation.version}/{versions}"]
    names = [one for one in dict.fromkeys((name, LOSS)) if one in evaluation.values]
    parts += [f"not evaluated: {evaluation.problem}, see the evaluator's log"] if evaluation.problem else []
    return "  ".join(parts + [f"{one} {in_digits(evaluation.values[one])}" for one in names])


def plain_line(
    phase: str,
    versions: int,
    facts: RunFacts,
    children: Sequence[ChildStatus],
    waits: Sequence[str] = (),
) -> str:
    """The whole state of a run in one line."""
    quality = facts.quality()
    values = [value for _, value in quality.curve()]
    parts = [f"{phase}: version {facts.version()}/{versions}"]
    if values:
        parts.append(f"{quality.name} {in_digits(values[-1], 3)} {sparkline(values, 12)}")
    if waits:
        parts.append(f"waiting for {', '.join(waits)}")
    else:
        parts.append(f"{facts.rate():.0f} updates/s")
    outcomes = facts.outcomes()
    shown = [f"{count} {outcome}" for outcome, count in list(outcomes.items())[:_COUNTS_SHOWN]]
    if len(outcomes) > _COUNTS_SHOWN:
        shown.append(f"{sum(list(outcomes.values())[_COUNTS_SHOWN:])} other")
    parts += [", ".join(shown)] if shown else []
    parts += [failed] if (failed := failed_line(facts)) else []
    wanted = [child for child in children if child.state != "done"]
    up = sum(child.state == "running" for child in wanted)
    parts.append(f"{up} of {len(wanted)} processes up")
    return "  ".join(parts)


def failed_line(facts: RunFacts) -> str:
    """``5 rounds failed (2 devices)``; "" where none has."""
    failed = facts.failed_rounds
    if not failed.total:
        return ""
    rounds = "1 round" if failed.total == 1 else f"{failed.total} rounds"
    devices = "1 device" if len(failed.devices) == 1 else f"{len(failed.devices)} devices"
    return f"{rounds} failed ({devices})"


def live_panel(
    title: str,
    phase: str,
    versions: int,
    facts: RunFacts,
    children: Sequence[ChildStatus],
    *,
    seconds: float,
    waits: Sequence[str] = (),
    footer: str = "",
) -> Panel:
    """The panel: one line of numbers, the curve, verdicts and processes side by side, and ``footer`` last.

    What was printed above a panel can be drawn over by it; what stands in it cannot.
    """
    head = Text.assemble(
        ("version ", "dim"),
        (f"{facts.version()}/{versions}", "bold"),
        ("   updates/s ", "dim"),
        f"{facts.rate():.0f}",
    )
    line = Text(f"waiting for {', '.join(waits) or 'the first version'}", style="yellow")
    quality = facts.quality()
    name = next((one for one in quality.names if one in {quality.name, LOSS}), LOSS)
    values = [value for _, value in quality.curve(name)]
    if values:
        line = Text.assemble(
            (f"{name} ", "dim"), (f"{in_digits(values[-1])} ", "bold green"), (sparkline(values, 50), "cyan")
        )
    columns = Table.grid(padding=(0, 4))
    columns.add_row(_verdict_table(facts), _process_table(children))
    failed = failed_line(facts)
    lines = [head, line, *([Text(failed, style="yellow")] if failed else []), Text("")]
    return Panel(
        Group(*lines, columns, *([Text(""), Text(footer, style="cyan")] if footer else [])),
        title=Text.assemble((title, "bold"), f"  {phase}"),
        title_align="left",
        subtitle=f"{seconds:.0f} s, Ctrl-C stops everything",
        subtitle_align="right",
        box=rich.box.ROUNDED,
        padding=(0, 2),
    )


def _verdict_table(facts: RunFacts) -> Table | Text:
    if not facts.outcomes():
        return Text("no verdicts yet", style="dim")
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("verdict")
    table.add_column("updates", justify="right")
    for outcome, count in facts.outcomes().items():
        table.add_row(Text(outcome, style="green" if outcome == ACCEPTED else "yellow"), str(count))
    return table


def _process_table(children: Sequence[ChildStatus]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True)
    for column in ("process", "state", "pid", "restarts"):
        table.add_column(column, justify="right" if column in {"pid", "restarts"} else "left")
    for child in children:
        state = Text(f"{_SIGNS[child.state]} {child.state}", style=_STYLES[child.state])
        table.add_row(child.name, state, str(child.pid), str(child.restarts or ""))
    return table
