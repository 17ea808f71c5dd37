"""How an audit shows that it moves: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aggregation.server.aggregates import Slot
from fluvial.terminal.output import Output

PLAIN_EVERY_S: Final = 5.0


class Progress:
    """Follows every partition from its first offset to its last, and through its verdicts behind that.

    A context manager; ``heard`` moves it.
    """

    def __init__(self, output: Output, offsets: Mapping[Slot, tuple[int, int]]) -> None:
        self._output = output
        self._offsets = dict(offsets)
        self._at = {slot: first for slot, (first, _) in offsets.items()}
        self._total = sum(end - first for first, end in offsets.values())
        self._said_s = time.monotonic()
        self._started_s = self._said_s
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._output.err.is_terminal and not self._output.json:
            columns = (
                TextColumn("folding and comparing verdicts"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("records"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._output.err, transient=True)
            self._bar_task = self._bar.add_task("auditing", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def heard(self, slot: Slot, next_offset: int) -> None:
        """A partition is folded up to ``next_offset``; what is above its last offset are records of verdicts."""
        self._at[slot] = max(self._at[slot], next_offset)
        done = sum(at - self._offsets[one][0] for one, at in self._at.items())
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=done)
            return
        now_s = time.monotonic()
        if now_s - self._said_s >= PLAIN_EVERY_S:
            self._said_s = now_s
            rate = done / (now_s - self._started_s)
            self._output.say(
                f"read {done} of {self._total} records, updates and verdicts, {rate:.0f} a second"
            )
