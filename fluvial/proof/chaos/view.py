"""How a chaos run looks: a live panel on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import rich.box
from rich.console import Group
from rich.constrain import Constrain
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluvial.processes.supervisor import ChildStatus
    from fluvial.proof.chaos.engine import Active
    from fluvial.terminal.output import Output

PLAIN_EVERY_S: Final = 5.0
_REFRESHES_PER_S: Final = 4
_WIDTH_MAX: Final = 110
_RIGHT_MARGIN: Final = 2
_STYLES: Final = {"running": "green", "restarting": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that a view shows. ``left_s`` None: the phase has no set length."""

    phase: str
    left_s: float | None
    version: int
    published: int
    acknowledged: int
    verdicts: int
    per_second: float
    active: Sequence[Active]
    counts: Mapping[str, int]
    children: Sequence[ChildStatus]

    @property
    def waiting(self) -> int:
        """Acknowledged updates without a verdict, about."""
        return max(0, self.acknowledged - self.verdicts)


class View(Protocol):
    """Shows a run; called several times a second."""

    def show(self, now: Situation) -> None:
        """Show it."""
        ...


class PlainView:
    """One line when some seconds have passed, or the phase has changed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = 0.0
        self._phase = ""

    def show(self, now: Situation) -> None:
        """See ``View``."""
        at = time.monotonic()
        if now.phase == self._phase and at - self._last < PLAIN_EVERY_S:
            return
        self._phase, self._last = now.phase, at
        self._output.say(plain_line(now))


class LiveView:
    """A panel that is drawn in place."""

    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title

    def show(self, now: Situation) -> None:
        """See ``View``."""
        width = min(self._live.console.width, _WIDTH_MAX) - _RIGHT_MARGIN
        self._live.update(Constrain(live_panel(self._title, now), width))


@contextlib.contextmanager
def open_view(output: Output, title: str) -> Iterator[View]:
    """The view that suits the output."""
    if not output.err.is_terminal:
        yield PlainView(output)
        return
    with Live(console=output.err, refresh_per_second=_REFRESHES_PER_S, transient=True) as live:
        yield LiveView(live, title)


def plain_line(now: Situation) -> str:
    """The whole state in one line."""
    faults = ", ".join(f"{count} {kind}" for kind, count in now.counts.items()) or "none yet"
    active = ", ".join(f"{one.fault.kind} {one.fault.target}" for one in now.active)
    left = "" if now.left_s is None else f" ({now.left_s:.0f} s left)"
    return (
        f"{now.phase}{left}: version {now.version}  {now.per_second:.0f} updates/s  "
        f"{now.acknowledged} acknowledged, {now.waiting} without a verdict  faults: {faults}"
        + (f"  now: {active}" if active else "")
    )


def live_panel(title: str, now: Situation) -> Panel:
    """The panel: numbers, then the faults that are there and the processes side by side."""
    head = Text.assemble(
        ("version ", "dim"),
        (str(now.version), "bold"),
        ("   updates/s ", "dim"),
        f"{now.per_second:.0f}",
        ("   published ", "dim"),
        str(now.published),
        ("   acknowledged ", "dim"),
        str(now.acknowledged),
        ("   without a verdict ", "dim"),
        (str(now.waiting), "yellow" if now.waiting else "green"),
    )
    kinds = Text("faults so far  ", style="dim")
    kinds.append(", ".join(f"{count} {kind}" for kind, count in now.counts.items()) or "none", style="bold")
    columns = Table.grid(padding=(0, 4))
    columns.add_row(_fault_table(now.active), _process_table(now.children))
    left = "" if now.left_s is None else f"  {now.left_s:.0f} s left"
    return Panel(
        Group(head, kinds, Text(""), columns),
        title=Text.assemble((title, "bold"), f"  {now.phase}{left}"),
        title_align="left",
        subtitle="Ctrl-C stops everything",
        subtitle_align="right",
        box=rich.box.ROUNDED,
        padding=(0, 2),
    )


def _fault_table(active: Sequence[Active]) -> Table | Text:
    if not active:
        return Text("nothing is broken now", style="dim")
    table = Table(box=None, pad_edge=False)
    for column in ("fault", "target", "how"):
        table.add_column(column)
    for one in active:
        table.add_row(Text(one.fault.kind, style="red"), one.fault.target, one.fault.detail)
    return table


def _process_table(children: Sequence[ChildStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("process", "state", "restarts"):
        table.add_column(column, justify="right" if column == "restarts" else "left")
    for child in children:
        state = Text(child.state, style=_STYLES.get(child.state, "dim"))
        table.add_row(child.name, state, str(child.restarts or ""))
    return table
