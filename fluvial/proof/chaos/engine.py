"""Drives a run's faults: begins what is due, goes on with what waits, and keeps broker and store alive."""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from aggregation.errors import FluvialError, TimeoutProblem
from fluvial.proof.chaos.history import FaultRecord
from fluvial.proof.chaos.injecting import Injector, Script, Sleep, Step, Trace, Until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.proof.chaos.parts import Parts
    from fluvial.proof.chaos.schedule import Fault
    from fluvial.terminal.output import Reporter

TARGET_WAIT_S_MAX: Final = 8.0
"""A fault whose target is still down is put off so long, then dropped."""
SERVICE_STARTS_MAX: Final = 3
HEAL_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.05


@dataclass(slots=True)
class Active:
    """One fault under way."""

    fault: Fault
    script: Script
    trace: Trace
    began_at: float
    step: Step | None = None
    since: float = 0.0


class Engine:
    """The faults of one run, in the order of their plan. Call ``act`` often, from the main thread."""

    def __init__(self, faults: Sequence[Fault], injector: Injector, parts: Parts, reporter: Reporter) -> None:
        self._due = deque(faults)
        self._injector = injector
        self._parts = parts
        self._reporter = reporter
        self._starting: dict[str, Future[int]] = {}
        self._starts_failed: Counter[str] = Counter()
        self.active: list[Active] = []
        self.records: list[FaultRecord] = []
        self.dropped: list[Fault] = []

    @property
    def counts(self) -> dict[str, int]:
        """Faults that were injected, by kind."""
        return dict(sorted(Counter(record.fault.kind for record in self.records if record.ok).items()))

    def act(self, elapsed_s: float) -> None:
        """Begin what is due after so many seconds; go on with what is under way.

        Raises FluvialError: a service does not come up again.
        """
        for fault in [fault for fault in self._due if fault.at_s <= elapsed_s]:
            if self._is_free(fault):
                self._due.remove(fault)
                self._begin(fault)
            elif elapsed_s - fault.at_s > TARGET_WAIT_S_MAX:
                self._due.remove(fault)
                self.dropped.append(fault)
        self._go_on(hurry=False)
        self._keep_ground()

    def heal(self) -> None:
        """End every fault now, and wait until what it broke is whole again.

        Raises TimeoutProblem: FLV-6403.
        """
        deadline = time.monotonic() + HEAL_TIMEOUT_S
        self._go_on(hurry=True)
        self._keep_ground()
        while self.active or self._starting:
            if time.monotonic() > deadline:
                names = ", ".join(
                    sorted({active.fault.target for active in self.active} | set(self._starting))
                )
                raise TimeoutProblem(
                    "FLV-6403",
                    f"{names} did not come back within {HEAL_TIMEOUT_S:.0f} s after the last fault",
                    hint="repeat it with `fluvial chaos --keep` and read the logs in the home that it names",
                )
            time.sleep(_POLL_S)
            self._go_on(hurry=True)
            self._keep_ground()

    def _busy(self) -> set[str]:
        return {name for active in self.active for name in self._names(active.fault)}

    def _names(self, fault: Fault) -> Sequence[str]:
        return self._parts.crew.names(fault.target)

    def _is_free(self, fault: Fault) -> bool:
        names = set(self._names(fault))
        if fault.on_ground and any(active.fault.on_ground for active in self.active):
            return False
        return not names & (self._busy() | set(self._starting)) and all(map(self._parts.is_up, names))

    def _begin(self, fault: Fault) -> None:
        trace = Trace()
        active = Active(fault, self._injector.script(fault, trace), trace, time.time())
        detail = f" ({fault.detail})" if fault.detail else ""
        self._reporter.say(f"fault {fault.number}: {fault.kind} {fault.target}{detail}")
        self.active.append(active)
        self._advance(active)

    def _go_on(self, *, hurry: bool) -> None:
        for active in list(self.active):
            if _is_over(active, hurry=hurry):
                self._advance(active)

    def _advance(self, active: Active) -> None:
        """Run a script to its next wait. What it cannot do is its outcome: the target went away by itself."""
        try:
            active.step, active.since = next(active.script), time.monotonic()
        except StopIteration as end:
            self._end(active, ok=True, outcome=str(end.value))
        except (FluvialError, ValueError, ProcessLookupError, psutil.Error) as error:
            self._end(active, ok=False, outcome=f"{type(error).__name__}: {error}")

    def _end(self, active: Active, *, ok: bool, outcome: str) -> None:
        self.active.remove(active)
        self.records.append(
            FaultRecord(
                active.fault, active.began_at, time.time(), ok, outcome, tuple(active.trace.killed_at)
            )
        )
        word = "" if ok else " could not be done or healed"
        self._reporter.say(f"fault {active.fault.number}{word}: {active.fault.target}: {outcome}")

    def _keep_ground(self) -> None:
        """Start a service that ended outside a fault of its own: a broker halts some time after its disk failed."""
        for name, start in list(self._starting.items()):
            if not start.done():
                continue
            del self._starting[name]
            error = start.exception()
            if error is not None:
                self._starts_failed[name] += 1
                if self._starts_failed[name] >= SERVICE_STARTS_MAX:
                    raise error
                self._reporter.say(f"{name} did not start: {error}")
        busy = self._busy()
        for name in self._parts.crew.ground:
            if name not in busy and name not in self._starting and not self._parts.is_up(name):
                self._reporter.say(f"{name} has ended: starting it again")
                self._starting[name] = self._parts.start_again(name)


def _is_over(active: Active, *, hurry: bool) -> bool:
    step = active.step
    waited_s = time.monotonic() - active.since
    match step:
        case Sleep():
            return hurry or waited_s >= step.seconds
        case Until():
            return hurry or step.true() or waited_s >= step.seconds_max
        case Future():
            return step.done()
        case None:
            return True
