"""Which fault hits whom, when and for how long: all of it follows from the seed.

Rules, so that a run is hard and still goes on:

- The broker, the store, their disks and the links of everybody are the ground that all stand on: one fault of that kind
  at a time, and ``GROUND_REST_S`` between two.
- No target gets a second fault before it could recover from the first, and at most ``AT_ONCE_MAX`` faults overlap.
- Every kind that was asked for comes once before any comes twice; later kinds are drawn by their weights.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from backends.crash_points import POINTS
from backends.kafka.faust.transport import SESSION_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["kill", "pause", "network", "disk", "corrupt"]
KINDS: Final[tuple[Kind, ...]] = ("kill", "pause", "network", "disk", "corrupt")
DEFAULT_KINDS: Final[tuple[Kind, ...]] = ("kill", "pause", "network", "disk")

BROKER: Final = "broker"
STORE: Final = "store"
EVALUATOR: Final = "evaluator"
FLEET: Final = "fleet"
MERGERS: Final = "mergers"
"""All mergers at the same moment."""
GUARDIANS: Final = "guardians"
"""All guardians at the same moment: no version has a new guide then."""
SERVICES: Final = (BROKER, STORE)

GAP_S: Final = 4.5
GROUND_REST_S: Final = 10.0
AT_ONCE_MAX: Final = 4
DOWN_S_MAX: Final = 2.0
PAUSE_S: Final = (SESSION_TIMEOUT_S + 1.0, SESSION_TIMEOUT_S * 2.0)
"""Longer than the session timeout: whoever wakes up finds its partitions given away."""
CRASH_POINT_SHARE: Final = 0.25
CRASH_PASSING_MAX: Final = 3
_KIND_WEIGHTS: Final[Mapping[Kind, int]] = {"kill": 5, "pause": 3, "network": 3, "disk": 1}
_KIND_SECONDS: Final[Mapping[Kind, tuple[float, float]]] = {
    "kill": (0.0, DOWN_S_MAX),
    "pause": PAUSE_S,
    "network": (2.0, 8.0),
    "disk": (2.0, 6.0),
}
_RECOVERY_S: Final[Mapping[str, float]] = {BROKER: 12.0, STORE: 6.0}
_PROCESS_RECOVERY_S: Final = 7.0
_GROUND_SHARE_OF_LINKS: Final = 0.3
NETWORK_MODES: Final = ("cut", "black-hole", "lost-answers", "slow")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as it is planned: ``at_s`` after the start, for about ``seconds``.

    ``target`` is a process, ``mergers``, ``guardians``, ``broker`` or ``store``. For ``network`` it is
    whose link is hit, and ``detail`` says how and to what: ``cut broker``, with ``broker`` or ``store`` as target for
    the links of everybody. For ``kill``, a ``detail`` is the crash point that the process is started with.
    """

    number: int
    at_s: float
    kind: Kind
    target: str
    seconds: float
    detail: str = ""

    @property
    def on_ground(self) -> bool:
        """Whether everything stands on what is hit."""
        return self.target in SERVICES


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Whom faults may hit. ``store`` False: the store is a folder, which has no process, link or disk of its own.

    ``broker`` False: that is somebody else's too. ``guardians`` are of tasks whose policy is guided.
    """

    workers: Sequence[str]
    mergers: Sequence[str]
    guardians: Sequence[str] = ()
    store: bool = True
    broker: bool = True

    @property
    def processes(self) -> tuple[str, ...]:
        """Every process of ours."""
        return (*self.workers, *self.mergers, *self.guardians, EVALUATOR, FLEET)

    @property
    def ground(self) -> tuple[str, ...]:
        """What all stand on."""
        return tuple(name for name, ours in ((BROKER, self.broker), (STORE, self.store)) if ours)

    def names(self, target: str) -> Sequence[str]:
        """The parts that a fault's target means."""
        return {MERGERS: self.mergers, GUARDIANS: self.guardians}.get(target, (target,))


def plan_faults(seed: int, seconds: float, kinds: Sequence[Kind], targets: Targets) -> list[Fault]:
    """The faults of a run of ``seconds``, in their order. ``corrupt`` is not among them: it has its own time."""
    wanted = [kind for kind in kinds if kind != "corrupt"]
    if not wanted:
        return []
    return _Planner(random.Random(f"faults {seed}"), seconds, wanted, targets).plan()  # noqa: S311


class _Planner:
    def __init__(self, rng: random.Random, seconds: float, kinds: Sequence[Kind], targets: Targets) -> None:
        self._rng = rng
        self._seconds = seconds
        self._kinds = list(kinds)
        self._targets = targets
        self._free_at: dict[str, float] = {}
        self._ends: list[float] = []
        self._faults: list[Fault] = []
        self._first = list(kinds)
        rng.shuffle(self._first)

    def plan(self) -> list[Fault]:
        now = 0.0
        while True:
            now += GAP_S * self._rng.uniform(0.4, 1.6)
            if now >= self._seconds:
                return self._faults
            fault = self._draw(now)
            if fault is not None:
                self._take(fault)

    def _draw(self, now: float) -> Fault | None:
        """A fault for now: None when everything that could be hit still recovers."""
        if sum(end > now for end in self._ends) >= AT_ONCE_MAX:
            return None
        kinds = self._first[:1] + self._shuffled_kinds()
        for kind in kinds:
            candidates = self._candidates(kind, now)
            if not candidates:
                continue
            targets, weights = zip(*candidates.items(), strict=True)
            target = self._rng.choices(targets, weights)[0]
            seconds = round(self._rng.uniform(*_KIND_SECONDS[kind]), 2)
            if kind in self._first:
                self._first.remove(kind)
            return Fault(
                len(self._faults) + 1, round(now, 2), kind, target, seconds, self._detail(kind, target)
            )
        return None

    def _shuffled_kinds(self) -> list[Kind]:
        left, order = list(self._kinds), []
        while left:
            kind = self._rng.choices(left, [_KIND_WEIGHTS[kind] for kind in left])[0]
            left.remove(kind)
            order.append(kind)
        return order

    def _candidates(self, kind: Kind, now: float) -> dict[str, float]:
        targets = self._targets
        workers = dict.fromkeys(targets.workers, 6.0 / len(targets.workers))
        mergers = dict.fromkeys(targets.mergers, 2.0 / len(targets.mergers))
        guardians = {name: 2.0 / len(targets.guardians) for name in targets.guardians}
        all_guardians = {GUARDIANS: 1.5} if guardians else {}
        ground = dict.fromkeys(targets.ground, 1.0)
        match kind:
            case "disk":
                weights = ground
            case "network":
                weights = {**workers, **mergers, **guardians, EVALUATOR: 0.5, FLEET: 1.0, **ground}
            case _:
                weights = {**workers, **mergers, MERGERS: 2.0, EVALUATOR: 0.7, FLEET: 1.0, **ground}
                weights |= guardians | all_guardians
        return {name: weight for name, weight in weights.items() if self._is_free(name, now)}

    def _is_free(self, target: str, now: float) -> bool:
        names = self._targets.names(target)
        ground = ("ground",) if target in SERVICES else ()
        return all(self._free_at.get(name, 0.0) <= now for name in (*names, *ground))

    def _detail(self, kind: Kind, target: str) -> str:
        rng = self._rng
        if kind == "network":
            mode = rng.choice(NETWORK_MODES)
            if target in SERVICES:
                return f"{mode} {target}"
            return f"{mode} {rng.choice(self._targets.ground)}"
        role = target.partition("-")[0]
        points = [point for point in POINTS if point.partition(".")[0] == role]
        if kind == "kill" and points and rng.random() < CRASH_POINT_SHARE:
            point = rng.choice(points)
            # A worker passes its points with every window; a merger, with another beside it, not with every version.
            often = role == "worker" and point != "worker.resumed"
            return f"{point}:{rng.randint(1, CRASH_PASSING_MAX if often else 1)}"
        return ""

    def _take(self, fault: Fault) -> None:
        self._faults.append(fault)
        end = fault.at_s + fault.seconds + _RECOVERY_S.get(fault.target, _PROCESS_RECOVERY_S)
        self._ends.append(end)
        for name in self._targets.names(fault.target):
            self._free_at[name] = end
        if fault.on_ground:
            self._free_at["ground"] = end + GROUND_REST_S
