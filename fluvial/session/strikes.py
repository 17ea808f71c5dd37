"""Killing parts of a run with -9, on purpose: which and when follow from the seed and the run's progress."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.processes.supervisor import Supervisor
    from fluvial.terminal.output import Reporter

DOWN_S_MAX: Final = 1.0
"""A victim stays down for up to this long: others shall have time to notice, or not."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One kill. ``version`` is the newest evaluated version then, ``seconds`` are since the training began."""

    name: str
    version: int
    seconds: float
    killed_pid: int
    new_pid: int


class Chaos:
    """``times`` kills, spread evenly over the versions of a run."""

    def __init__(
        self, supervisor: Supervisor, victims: Sequence[str], *, times: int, versions: int, seed: int
    ) -> None:
        """Choose among the children named ``victims``."""
        self._supervisor = supervisor
        self._victims = sorted(victims)
        self._due = [versions * (number + 1) / (times + 1) for number in range(times)]
        self._random = random.Random(f"chaos {seed}")  # noqa: S311 (reproducible, not secret)
        self._down: tuple[str, int, int, float] | None = None
        self._back_at = 0.0
        self.strikes: list[Strike] = []

    @property
    def finished(self) -> bool:
        """Whether every kill was made and every victim is back."""
        return not self._due and self._down is None

    def act(self, version: int, seconds: float, reporter: Reporter) -> None:
        """Kill or start again whatever is due, one victim at a time. Call it often, from the main thread."""
        if self._down is not None:
            if time.monotonic() >= self._back_at:
                name, killed_version, killed_pid, killed_seconds = self._down
                new_pid = self._supervisor.restart(name)
                self._down = None
                self.strikes.append(Strike(name, killed_version, killed_seconds, killed_pid, new_pid))
                reporter.say(f"chaos: started {name} again (pid {new_pid})")
            return
        if not self._due or version < self._due[0]:
            return
        alive = [name for name in self._victims if self._supervisor.running(name)]
        if not alive:
            return
        self._due.pop(0)
        name = self._random.choice(alive)
        pid = self._supervisor.kill9(name)
        reporter.say(f"chaos: killed {name} (pid {pid}) with -9 at version {version}")
        self._down = (name, version, pid, round(seconds, 2))
        self._back_at = time.monotonic() + self._random.uniform(0.0, DOWN_S_MAX)
