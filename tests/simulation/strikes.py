"""The faults that strike a simulated federation: when and of which kinds, and how often answers are lost or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.crowd import Intruder
from tests.simulation.liars import Liar, Planter
from tests.simulation.memory_log import seeded
from tests.simulation.memory_store import StoreFaults
from tests.simulation.scenario import TASK
from tests.simulation.staff import UNTOUCHED

if TYPE_CHECKING:
    from tests.simulation.federation import Federation
    from tests.simulation.scheduler import Process

STRIKES = (
    "kill",
    "pause",
    "log away",
    "store away",
    "store full",
    "clock",
    "rebalance",
    "intruder",
    "defect",
    "liar",
    "planter",
)
PAUSE_S_MAX = 9.0
AWAY_S_MAX = 4.0
CLOCK_JUMP_S = 3600.0
FAULTY_S = 8.0
STRIKES_MAX = 14


class Strikes:
    """A run's character: some are calm, some are all crashes, some all lost answers."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self.counts: dict[str, int] = {}
        self.rng = seeded(federation.seed, "faults")
        self.crashing = self.rng.choice((0.0, 0.002, 0.01, 0.03))
        self.unsure = self.rng.choice((0.0, 0.05, 0.3))
        self.store = StoreFaults(
            refused=self.rng.choice((0.0, 0.01, 0.1)),
            answer_lost=self.rng.choice((0.0, 0.02, 0.1)),
            repeated=self.rng.choice((0.0, 0.05, 0.3)),
            damaged=self.rng.choice((0.0, 0.0, 0.02)),
        )
        # From a stream of its own: the runs in which the broker refuses nothing are as they were without this.
        self.refusing = seeded(federation.seed, "refusals").choice((0.0, 0.0, 0.0, 0.05))
        self._intruder = Intruder(federation.log, federation.genesis, seeded(federation.seed, "intruder"))
        self.liar = Liar(federation.log, federation.genesis, seeded(federation.seed, "liar"))
        self._planter = Planter(federation.objects, TASK, seeded(federation.seed, "planter"))

    def count(self, kind: str) -> None:
        """Count a fault that has struck."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def plan(self) -> None:
        """Strikes at random times, of random kinds; how many, and which, is the run's character."""
        kinds = self.rng.sample(STRIKES, self.rng.randint(1, len(STRIKES)))
        for _ in range(self.rng.randint(0, STRIKES_MAX)):
            kind = self.rng.choice(kinds)
            at_s = self.rng.random() * FAULTY_S
            self._federation.loop.later(at_s, lambda kind=kind: self._strike(kind))  # type: ignore[misc]

    def _strike(self, kind: str) -> None:
        run, rng = self._federation, self.rng
        if run.healthy:
            return
        self.count(kind)
        processes, groups = run.staff.processes, run.staff.groups
        name = rng.choice([name for name in sorted(processes) if name not in UNTOUCHED])
        process = processes[name]
        run.trace("fault:", kind, name)
        strikes: dict[str, Callable[[], object]] = {
            "kill": lambda: run.staff.restart(name) if process.alive else None,
            "pause": lambda: self._for_a_while(process.pause, process.wake, PAUSE_S_MAX),
            "log away": lambda: self._away(run.log, "away"),
            "store away": lambda: self._away(self.store, "away"),
            "store full": lambda: self._away(self.store, "full"),
            "clock": lambda: self._jump(process),
            "rebalance": groups[rng.choice(sorted(groups))].rebalance,
            "defect": run.defect.strike,
            "intruder": lambda: run.trace("intruder:", self._intruder.act()),
            "liar": lambda: run.trace("liar:", self.liar.act()),
            "planter": self._plant,
        }
        strikes[kind]()

    def _plant(self) -> None:
        self._federation.trace("planter:", self._planter.act(self._federation.versions))
        self._federation.loop.later(self.rng.random() * AWAY_S_MAX, self.discard)

    def discard(self) -> None:
        """Remove what was planted, as an operator does with `fluvial task discard`."""
        written = self._federation.objects.history.items()
        self._planter.remove({value for key, values in written if "/versions/" in key for value in values})

    def _for_a_while(
        self, begin: Callable[[], object], end: Callable[[], object], seconds_max: float
    ) -> None:
        begin()
        self._federation.loop.later(self.rng.random() * seconds_max, end)

    def _away(self, part: object, attribute: str) -> None:
        self._for_a_while(
            lambda: setattr(part, attribute, True), lambda: setattr(part, attribute, False), AWAY_S_MAX
        )

    def _jump(self, process: Process) -> None:
        process.clock_jump_s = self.rng.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S)
        self._federation.log.clock_jump_ms = round(self.rng.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S) * 1000)
