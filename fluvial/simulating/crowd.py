"""Who trains when: so many devices at once out of a population of any size, each at most once a version.

A device that trains is an entry of a queue by the time at which its round ends. Of the others nothing is kept but who
has trained on the newest version, which is forgotten when there is a newer one.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from aggregation.errors import UsageProblem
from aggregation.selection import selection_named, turns_after
from fluvial.session.patience import DeadEnd, advice
from fluvial.simulating.work import nobody_succeeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluvial.session.engine import Engine
    from fluvial.simulating.draws import Indices
    from fluvial.simulating.ledger import Ledger
    from fluvial.simulating.population import Population
    from producers.fleet.failures import FailedRounds
    from producers.sdk.bases import Base
    from producers.sdk.updates import Publication
    from schemas.records import Announcement

AT_ONCE: Final = 1000
"""How many devices train at once, where nobody says otherwise and there are so many."""
LOOKED_THROUGH_MAX: Final = 2048
"""In a population of at most so many, all are looked through for those who can begin; else some are drawn and tried."""
TRIES: Final = 32
LOST_IN_A_ROW_MAX: Final = 100_000
_CHOICE_STREAM: Final = 3


class Work(Protocol):
    """What a round's work is: real training, or an update of a given size."""

    ahead: int
    """How many rounds may be under way for those that end next; 0: each is done when it ends."""
    failed: FailedRounds

    def region(self, device: int) -> str:
        """Of a device."""
        ...

    def may_answer(self, device: int, base: Base, waited_s: float) -> bool:
        """Whether the policy selects it for ``base``, which it knows for so many seconds."""
        ...

    def is_ever_selected(self, device: int, base: Base) -> bool:
        """Whether the policy may select it for a version like ``base``, however long it waits."""
        ...

    def begin(self, device: int, base: Base) -> Any:
        """Let its work begin, to be handed to ``end``."""
        ...

    def end(self, device: int, base: Base, begun: Any) -> Publication | None:
        """What the device publishes at this time of the clock; None where its round failed."""
        ...


@dataclass(slots=True)
class Going:
    """A round under way."""

    device: int
    base: Base
    began_s: float
    lost: bool
    work: Any = None
    is_begun: bool = False


class Crowd:
    """The engine's devices. ``at_once``: how many train at the same time; ``tick_s``: so often the loops look.

    ``model_bytes``: what a device fetches at a round's beginning.
    """

    def __init__(
        self,
        engine: Engine,
        population: Population,
        work: Work,
        ledger: Ledger,
        *,
        at_once: int,
        tick_s: float,
        seed: int,
        model_bytes: int,
    ) -> None:
        self._engine = engine
        self._population = population
        self._work = work
        self._ledger = ledger
        self._at_once = at_once
        self._tick_s = tick_s
        self._random = np.random.default_rng([seed, _CHOICE_STREAM])
        self._model_bytes = model_bytes
        self._rounds: list[tuple[float, int, Going]] = []
        self._going: set[int] = set()
        self._done: set[int] = set()
        """Who has begun on the newest version."""
        self._version = -1
        self._begun = 0
        self._nobody_until_s = 0.0
        self._lost_in_a_row = 0
        self._head_since_s = 0.0
        self._selects = False
        self._has_unselected = False

    # -- beginning

    def begin(self, announced: Mapping[str, Announcement]) -> None:
        """Devices begin until ``at_once`` of them train, or nobody who is there has not had the version."""
        if not announced:
            return
        newest = max(announced.values(), key=lambda one: one.version)
        policy = self._engine.bases.announced(newest).policy
        in_rounds, self._selects = policy.in_rounds, selection_named(policy.selection.kind).selective
        if newest.version != self._version:
            self._go_on_to(newest.version, in_rounds=in_rounds)
        now_s = self._engine.clock.now_s
        free = self._at_once - len(self._done if in_rounds else self._going)
        if free <= 0 and in_rounds:
            self._nobody_until_s = math.inf  # the round has its cohort
        if free > 0 and now_s >= self._nobody_until_s:
            devices = self._who(free, now_s, announced)
            if len(devices) < free:
                self._nobody_until_s = min(self._next_turn(now_s), self._next_change(now_s))
            self._start(devices, announced, now_s)
        self._work_ahead()

    def _go_on_to(self, version: int, *, in_rounds: bool) -> None:
        """There is a new version. In rounds, what is under way for an older one would be refused: its devices stop."""
        self._version = version
        if in_rounds:
            for _, device, going in self._rounds:
                self._going.discard(device)
                self._ledger.round_ended(self._engine.clock.now_s - going.began_s, lost=True)
            self._rounds.clear()
        self._done.clear()
        self._nobody_until_s = 0.0
        self._head_since_s = self._engine.clock.now_s

    def _next_change(self, now_s: float) -> float:
        return math.inf if self._population.always_there else self._population.next_change(now_s)

    def _next_turn(self, now_s: float) -> float:
        """When the policy selects more devices, if there are any that it has not selected."""
        if not self._has_unselected:
            return math.inf
        seconds_max = self._engine.bases.at(0).policy.buffer.seconds_max
        turns = turns_after(now_s - self._head_since_s, seconds_max)
        return self._head_since_s + (turns + 1) * seconds_max

    def _selected(self, device: int, announced: Mapping[str, Announcement], now_s: float) -> bool:
        if not self._selects:
            return True
        base = self._engine.bases.announced(announced[self._work.region(device)])
        selected = self._work.may_answer(device, base, now_s - self._head_since_s)
        if not selected and not self._has_unselected:
            self._has_unselected = self._work.is_ever_selected(device, base)
        return selected

    def _who(self, wanted: int, now_s: float, announced: Mapping[str, Announcement]) -> Indices:
        """int64[≤ wanted], each able to begin, in the order in which they do."""
        self._has_unselected = False
        number = self._population.devices
        if number <= LOOKED_THROUGH_MAX or 2 * (len(self._done | self._going) + wanted) > number:
            able = self._population.available(everybody := np.arange(number), now_s)
            able[list(self._done)] = False
            able[list(self._going)] = False
            tried = self._random.permutation(everybody[able]).tolist()
            found = (one for one in tried if self._selected(one, announced, now_s))
            return np.array(list(islice(found, wanted)), dtype=np.int64)
        chosen: dict[int, None] = {}
        for _ in range(TRIES):
            drawn = self._random.integers(0, number, 2 * (wanted - len(chosen)) + 16)
            there = drawn[self._population.available(drawn, now_s)]
            chosen |= dict.fromkeys(
                one
                for one in there.tolist()
                if one not in self._done and one not in self._going and self._selected(one, announced, now_s)
            )
            if len(chosen) >= wanted:
                break
        return np.array(list(chosen)[:wanted], dtype=np.int64)

    def _start(self, devices: Indices, announced: Mapping[str, Announcement], now_s: float) -> None:
        if not len(devices):
            return
        seconds, lost = self._population.rounds(devices, self._begun, now_s)
        self._begun += len(devices)
        for device, takes_s, is_lost in zip(devices.tolist(), seconds.tolist(), lost.tolist(), strict=True):
            base = self._engine.bases.announced(announced[self._work.region(device)])
            heapq.heappush(self._rounds, (now_s + takes_s, device, Going(device, base, now_s, is_lost)))
            self._going.add(device)
            self._done.add(device)
        self._ledger.bytes_down += self._model_bytes * len(devices)

    def _work_ahead(self) -> None:
        """Let those work by now who end next: which are they, is for the clock alone to say."""
        if not self._work.ahead:
            return
        for _, _, going in heapq.nsmallest(self._work.ahead, self._rounds):
            if not going.lost and not going.is_begun:
                going.work, going.is_begun = self._work.begin(going.device, going.base), True

    # -- time

    def next_moment(self) -> float:
        """A tick further while something waits or ends soon, else to the next end, or to when somebody comes."""
        clock, waiting = self._engine.clock, self._engine.federation.updates_waiting
        tick_s = clock.now_s + self._tick_s
        next_s = self._rounds[0][0] if self._rounds else math.inf
        if len(self._going) < self._at_once:
            next_s = min(next_s, max(self._nobody_until_s, tick_s))
        if not waiting and next_s == math.inf:
            raise self._dead_end()
        if not self._rounds and waiting and self._waits_for_nothing(clock.now_s):
            raise self._dead_end()
        return tick_s if waiting or next_s <= tick_s else next_s

    def play_until(self, now_s: float) -> None:
        """Whatever ends by then, at its own time."""
        clock = self._engine.clock
        while self._rounds and self._rounds[0][0] <= now_s:
            due_s, device, going = heapq.heappop(self._rounds)
            clock.advance_to(due_s)
            self._end(device, going)
            self._work_ahead()
        clock.advance_to(now_s)

    def _end(self, device: int, going: Going) -> None:
        self._going.discard(device)
        if self._nobody_until_s == math.inf and going.base.version < self._version:
            self._nobody_until_s = 0.0  # it has not had the newest yet
        self._ledger.round_ended(self._engine.clock.now_s - going.began_s, lost=going.lost)
        if going.lost:
            self._lose(device, going)
            return
        self._lost_in_a_row = 0
        made = self._work.end(device, going.base, going.work)
        if made is not None:
            self._engine.log.append(made.topic, made.partition, made.key, made.value, ())

    def _lose(self, device: int, going: Going) -> None:
        """It may try again, also on the same version."""
        if going.base.version == self._version:
            self._done.discard(device)
            self._nobody_until_s = min(self._nobody_until_s, self._engine.clock.now_s)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW_MAX:
            raise UsageProblem(
                "FLV-6453",
                f"the last {self._lost_in_a_row} rounds were lost: no device is there for as long as its round takes",
                hint="make rounds shorter (`--round`), days longer (`--day`, `--awake`), or mend the trace",
            )

    # -- no further version

    def _waits_for_nothing(self, now_s: float) -> bool:
        """Whether what waits has waited for all that could make a version of it, and nobody comes any more."""
        policy = self._engine.bases.at(0).policy
        patience_s = policy.buffer.seconds_max + 2.0 * policy.window.seconds_max + 10.0 * self._tick_s
        return self._nobody_until_s == math.inf and now_s - self._head_since_s > max(patience_s, 60.0)

    def _dead_end(self) -> UsageProblem:
        outcomes = dict(self._ledger.since_head)
        if not outcomes and self._work.failed.total:
            return nobody_succeeds(self._work.failed, self._work.failed.total)
        end = DeadEnd(self._engine.head, outcomes, 0.0, self._work.failed.total)
        return UsageProblem(
            "FLV-2217", f"every device has published, and {end.in_words()}", hint=advice(outcomes)
        )
