"""One simulation from its plan to its result: a crowd, an engine, and a point a version.

The same plan, policy and task give the same points and the same model, bit for bit, with any number of processes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.defences import defence_named
from aggregation.errors import UsageProblem
from backends.folders import temporary_folder
from fluvial.local.create import check_regions, first_version, make_keys
from fluvial.reading.quality import Quality
from fluvial.session.engine import Engine, Evaluations, VersionFacts
from fluvial.session.guided import guide
from fluvial.simulating.crowd import Crowd
from fluvial.simulating.forgetting import Forgetting
from fluvial.simulating.ledger import Ledger, Point
from fluvial.simulating.signing import Authors, Believing
from fluvial.simulating.synthetic import first_synthetic
from fluvial.simulating.training import Split
from fluvial.simulating.work import SyntheticWork, TrainedWork
from producers.fleet.failures import FailedRounds
from producers.sdk.turns import check_somebody
from schemas.task_metric import metric_among, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from aggregation.fold.events import WindowClosed
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate, Slot
    from fluvial.local.create import FirstVersion
    from fluvial.simulating.crowd import Work
    from fluvial.simulating.plan import Plan
    from fluvial.simulating.training import Trainers
    from learning import Dataset, Examples, Task
    from producers.fleet.failures import FailedRound
    from schemas.manifests import Metric


COLLECTED_AFTER: Final = (50_000, 50, 50)
"""Allocations, and collections of the younger ones, after which Python looks for circles."""


@dataclass(slots=True)
class Outcome:
    """What came of a simulation: a point a version, the totals, and how long it took on this machine.

    ``cpu_s``: of this process' processor time.
    """

    metric: Metric | None
    points: list[Point]
    ledger: Ledger
    failed: FailedRounds
    seconds: float
    wall_s: float
    cpu_s: float
    ended: str
    values: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def quality(self) -> Quality:
        """The task's metric over the versions."""
        return Quality(self.metric, self.values)

    def document(self) -> dict[str, Any]:
        """For JSON. ``machine`` alone is not the same the next time."""
        quality = self.quality
        return {
            "versions": len(self.points),
            "seconds": round(self.seconds, 3),
            **self.ledger.totals(),
            "failed_rounds": self.failed.document(),
            "metric": quality.document(),
            "ended": self.ended,
            "model_sha256": self.points[-1].model_sha256 if self.points else None,
            "machine": {
                "seconds": round(self.wall_s, 3),
                "cpu_seconds": round(self.cpu_s, 3),
                "updates_per_second": round(self.ledger.updates / self.wall_s, 1) if self.wall_s else 0.0,
            },
        }


class _Watching(Ledger):
    """The ledger, which also hears of windows for those who forget them."""

    def __init__(self, forgetting: Forgetting) -> None:
        super().__init__()
        self._forgetting = forgetting

    def window_published(self, slot: Slot, closed: WindowClosed, aggregate: Aggregate) -> None:  # noqa: ARG002 (the observer's)
        """See ``Observer``."""
        self._forgetting.published(slot, aggregate)


def simulate_crowd(
    plan: Plan,
    policy: Policy,
    *,
    task: Task | None = None,
    trainers: Trainers | None = None,
    on_point: Callable[[Point, Ledger], None] = lambda *_: None,
    on_failure: Callable[[FailedRound, bool], None] = lambda *_: None,
) -> Outcome:
    """Play ``plan`` under ``policy``: a ``task`` that ``trainers`` train, or updates that nobody trained.

    ``on_point`` is called after each version, ``on_failure`` after each failed round, with whether it is the first of
    its kind. Raises UsageProblem: FLV-2405 (regions), FLV-2217 (nothing more can be accepted), FLV-2232 (more devices
    than the data has parts), FLV-2511 (the policy selects nobody), FLV-6310 (no round succeeds), FLV-6450 (a guided
    policy without a task), FLV-6453 (all rounds are lost), FLV-2248 (the aim); EnvironmentProblem FLV-6452; and what
    loading the data raises.
    """
    check_regions(plan.regions)
    with temporary_folder("fluvial-simulation-") as folder, _seldom_collected():
        trained = None if task is None or trainers is None else Training(task, trainers, on_failure)
        simulation = _Simulation(plan, policy, folder, trained)
        return simulation.to_the_end(on_point)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """A state of many devices is many objects without circles: to look through them often is a sixth of all work."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained, by whom, and who hears of rounds that fail."""

    task: Task
    trainers: Trainers
    on_failure: Callable[[FailedRound, bool], None]


class _Simulation:
    def __init__(self, plan: Plan, policy: Policy, folder: Path, training: Training | None) -> None:
        self._plan = plan
        self._folder = folder
        self._forgetting = Forgetting()
        self._ledger = _Watching(self._forgetting)
        self._metric: Metric | None = None
        self._evaluations: Evaluations | None = None
        make_keys(folder, plan.regions, guided=defence_named(policy.defence.kind).guided)
        first = self._first_synthetic(policy) if training is None else self._first(policy, training.task)
        trust = None if plan.signed else Believing.of(first.genesis.trust)
        self._engine = Engine(first, folder, trust=trust, observer=self._ledger)
        work = self._synthetic() if training is None else self._trained(training, first)
        self._crowd = Crowd(
            self._engine,
            plan.population,
            work,
            self._ledger,
            at_once=min(plan.at_once, plan.population.devices),
            tick_s=plan.tick_s,
            seed=plan.seed,
            model_bytes=len(first.model),
        )
        self._failed = work.failed
        self._points: list[Point] = []
        self._values: dict[int, dict[str, float]] = {}
        self._ended = ""

    def _first(self, policy: Policy, task: Task) -> FirstVersion:
        from learning.trial import metric_or_problem

        plan = self._plan
        self._metric, _ = metric_or_problem(task, plan.seed)
        return first_version(
            task.name,
            task,
            regions=plan.regions,
            policy=policy,
            folder=self._folder,
            seed=plan.seed,
            metric=self._metric,
        )

    def _first_synthetic(self, policy: Policy) -> FirstVersion:
        plan = self._plan
        if defence_named(policy.defence.kind).guided:
            raise UsageProblem(
                "FLV-6450",
                f"the policy's defence is {policy.defence.kind}: a guardian has nothing to train where nobody trains",
                hint='simulate a task, or choose another [defence] than "guide"',
            )
        return first_synthetic(plan.synthetic, regions=plan.regions, policy=policy, folder=self._folder)

    def _authors(self, names: Sequence[str] = (), cohorts: Sequence[str] = ()) -> Authors:
        plan, policy = self._plan, self._engine.genesis.first_policy
        cohorts = (plan.population.cohorts or cohorts) if policy.knows_cohorts else ()
        check_somebody(policy, cohorts or [""])
        return Authors(
            self._engine.genesis,
            self._folder,
            seed=plan.seed,
            signed=plan.signed,
            names=names,
            cohorts=cohorts,
        )

    def _synthetic(self) -> Work:
        return SyntheticWork(self._engine, self._authors(), codec=self._plan.codec, seed=self._plan.seed)

    def _trained(self, training: Training, first: FirstVersion) -> Work:
        from learning.binding import bind
        from learning.cohorts import certified_cohorts
        from learning.parts import device_ids

        plan, engine, task = self._plan, self._engine, training.task
        devices, data = plan.population.devices, task.data()
        bound = bind(task, first.genesis, engine.store.get_object)
        guide(engine.federation, bound, self._folder, seed=plan.seed, train_config=task.config)
        self._evaluations = Evaluations(engine, first, bound, data.test)
        cohorts = certified_cohorts(first.genesis.first_policy, bound, self._shards(data))
        return TrainedWork(
            engine,
            self._authors(device_ids(data, devices), cohorts),
            training.trainers,
            split=Split(devices, plan.alpha, plan.seed),
            config=task.config,
            codec=plan.codec,
            on_failure=training.on_failure,
        )

    def _shards(self, data: Dataset) -> Iterator[Examples]:
        """The devices' examples, dealt out once somebody asks for them."""
        from learning.parts import device_data

        plan = self._plan
        yield from device_data(data, plan.population.devices, plan.alpha, plan.seed)

    def to_the_end(self, on_point: Callable[[Point, Ledger], None]) -> Outcome:
        began_s, cpu_s = time.monotonic(), time.process_time()
        asyncio.run(self._engine.play(self._crowd, lambda: self._told(on_point)))
        return Outcome(
            self._metric,
            self._points,
            self._ledger,
            self._failed,
            self._engine.clock.now_s,
            time.monotonic() - began_s,
            time.process_time() - cpu_s,
            self._ended,
            self._values,
        )

    def _told(self, on_point: Callable[[Point, Ledger], None]) -> bool:
        """Every version that is new, as a point; whether it is enough."""
        self._forgetting.sweep_logs(self._engine)
        plan, ledger = self._plan, self._ledger
        for number in range(len(self._points) + 1, min(plan.versions, self._engine.head) + 1):
            point = self._point(number)
            self._points.append(point)
            ledger.head_moved(number)
            self._forgetting.sweep_store(self._engine, self._engine.store.manifest(number))
            on_point(point, ledger)
            self._ended = plan.aim.ends(Quality(self._metric or _metric_of(point), self._values))
            if self._ended:
                return True
        ends = (
            (len(self._points) >= plan.versions, f"{plan.versions} versions are made"),
            (ledger.updates >= plan.updates, f"{ledger.updates} updates are judged"),
            (self._engine.clock.now_s >= plan.seconds, f"{plan.seconds:g} s have passed"),
        )
        self._ended = next((why for is_over, why in ends if is_over), "")
        return bool(self._ended)

    def _point(self, number: int) -> Point:
        plan, ledger, facts = self._plan, self._ledger, None
        manifest = self._engine.store.manifest(number)
        is_due = number % plan.evaluate_every == 0 or number == plan.versions
        if self._evaluations is not None and is_due:
            facts = self._evaluations.of(number)
            self._note(facts)
        return Point(
            version=number,
            seconds=round(self._engine.clock.now_s, 6),
            updates=ledger.updates,
            accepted=ledger.accepted,
            rounds=ledger.rounds,
            device_seconds=round(ledger.device_seconds, 6),
            bytes_up=ledger.bytes_up,
            bytes_down=ledger.bytes_down,
            staleness=manifest.staleness_total / manifest.accepted,
            model_sha256=manifest.model_sha256,
            metrics=dict(facts.metrics) if facts is not None else {},
            problem=facts.problem if facts is not None else "",
        )

    def _note(self, facts: VersionFacts) -> None:
        if not facts.problem:
            self._values[facts.version] = values_of(facts.metrics)


def _metric_of(point: Point) -> Metric | None:
    return metric_among(point.metrics) if point.metrics else None
