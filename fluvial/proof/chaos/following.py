"""One turn of a run's loop: notice deaths, follow the topics, show it all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fluvial.proof.chaos.view import Situation

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregation.errors import FluvialError
    from fluvial.processes.supervisor import Supervisor
    from fluvial.proof.chaos.engine import Engine
    from fluvial.proof.chaos.view import View
    from fluvial.proof.chaos.watching import Tally, Watch
    from fluvial.reading.progress import RunFacts

POLL_S: Final = 0.1


class Turns:
    """What every phase of a run does again and again."""

    def __init__(
        self, supervisor: Supervisor, watch: Watch, view: View, engine: Engine, tally: Tally
    ) -> None:
        self._supervisor = supervisor
        self._watch = watch
        self._view = view
        self._engine = engine
        self._tally = tally

    @property
    def facts(self) -> RunFacts:
        """What the topics have shown."""
        return self._watch.facts

    def step(self, phase: str, left_s: float | None = None) -> None:
        """One turn; takes about ``POLL_S``."""
        self._supervisor.check()
        self._watch.look()
        published, acknowledged = self._tally.look()
        self._view.show(
            Situation(
                phase=phase,
                left_s=left_s,
                version=self.facts.version(),
                published=published,
                acknowledged=acknowledged,
                verdicts=sum(self.facts.outcomes().values()),
                per_second=self.facts.rate(),
                active=tuple(self._engine.active),
                counts=self._engine.counts,
                children=self._supervisor.statuses(),
            )
        )
        time.sleep(POLL_S)

    def for_seconds(self, phase: str, seconds: float) -> None:
        """Go on for so long, keeping everything alive."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._engine.heal()
            self.step(phase, left_s)

    def until(self, phase: str, true: Callable[[], bool], timeout_s: float, otherwise: FluvialError) -> None:
        """Go on until something is true; raises ``otherwise`` when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                raise otherwise
            self.step(phase)
