"""A task trained in this process, on a clock of its own: ``fluvial run --simulate``.

There is no second set of rules: devices sign and publish real updates, the workers' own loops fold them, the merger's
own loop makes versions, under the whole policy (``in_process``). What is simulated is time. Every device trains at its
own pace on its own examples; its update arrives when its round is over; a tick of the clock closes old windows and
brings deadlines. One history follows from the arguments, and so does the model, bit for bit.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregation.codecs import DEFAULT_CODEC
from aggregation.defences import defence_named
from aggregation.errors import UsageProblem
from aggregation.policy import Policy
from backends.folders import temporary_folder
from backends.memory.log import MemoryReader
from fluvial.local.create import check_regions, first_version, make_keys
from fluvial.local.policies import layered_policy, quick_policy
from fluvial.reading.quality import Quality
from fluvial.session.engine import TICK_S, Engine, Evaluations, VersionFacts
from fluvial.session.guided import guide
from fluvial.session.patience import simulated_dead_end
from producers.fleet.behaviours import Behaviour
from producers.fleet.failures import ROUNDS_FAILED_MAX, FailedRounds
from producers.fleet.population import FleetConfig, Member, next_behaviour, populate
from producers.fleet.rounds import Rounds
from producers.sdk.turns import is_ever_selected
from schemas.task_metric import LOSS, metric_among, values_of
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import CodecName
    from aggregation.fold.events import Verdict
    from learning import Task, TrainConfig
    from producers.fleet.failures import FailedRound
    from producers.sdk.bases import Base
    from schemas.manifests import Metric
    from schemas.records import Announcement

ONE_REGION: Final[Mapping[str, int]] = {"local": 1}
ROUND_S: Final = 1.0
"""The median of a device's round, in seconds of the simulated clock."""
DEVICES: Final = 40
VERSIONS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """One record of a device and its verdict. ``honest``: whether its device followed the rules in that round."""

    region: str
    partition: int
    offset: int
    device: int
    honest: bool
    verdict: Verdict


@dataclass(slots=True)
class SimulationResult:
    """What happened. ``parameters`` float32[P]: the last version's model, flat, in the layout's order.

    ``metric``: by which of its numbers the task is judged; None where that could not be tried. ``failed_rounds``:
    rounds of devices that ended before there was an update.
    """

    parameters: npt.NDArray[np.float32]
    metric: Metric | None = None
    versions: list[VersionFacts] = field(default_factory=list)
    updates: list[UpdateFacts] = field(default_factory=list)
    failed_rounds: FailedRounds = field(default_factory=FailedRounds)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many records of devices got which verdict."""
        return dict(Counter(update.verdict.outcome for update in self.updates))

    @property
    def quality(self) -> Quality:
        """The task's metric, and what every version reached; what is no finite number is left out."""
        values = {facts.version: values_of(facts.metrics) for facts in self.versions}
        metric = self.metric or (metric_among(self.versions[-1].metrics) if self.versions else None)
        return Quality(metric, values)

    def curve(self, metric: str = "") -> list[float]:
        """One metric, else the task's own, over the versions; a version whose task does not report it gives NaN."""
        name = metric or (self.metric.name if self.metric is not None else LOSS)
        return [facts.metrics.get(name, math.nan) for facts in self.versions]


def simulate(
    task: Task | str | Path,
    *,
    devices: int | None = None,
    versions: int = 30,
    attackers: int = 0,
    misbehaving: int = 0,
    policy: Policy | None = None,
    regions: Mapping[str, int] = ONE_REGION,
    alpha: float = 1.0,
    speed_spread: float = 0.5,
    codec: CodecName = DEFAULT_CODEC,
    seed: int = 0,
    train_config: TrainConfig | None = None,
    on_version: Callable[[VersionFacts], object] | None = None,
    on_failure: Callable[[FailedRound, bool], None] | None = None,
) -> SimulationResult:
    """Train ``task`` until ``versions`` versions are made; the same arguments give the same result.

    ``task``: a loaded one, a shipped name, or a task file's path. ``devices``: None for one a natural part of the
    data, else 40. ``policy``: None for the task's own over the quick
    defaults of a run. ``regions`` maps each to its partitions. ``attackers``: the last so many devices, by sign-flip
    and noise in turn; ``misbehaving``: so many before them break rules. ``alpha``: the Dirichlet concentration of the
    split. ``speed_spread``: sigma of the log-normal pace. ``on_version`` is called after each version, the last one
    if it returns True; ``on_failure`` after each failed round, with whether it is the first of its kind.

    Raises UsageProblem: FLV-2216 (versions), FLV-2405 (regions), FLV-2505 (devices), FLV-2217 (nothing more can be
    accepted), FLV-2240 and FLV-2242 (its metrics), FLV-6310 (every device fails again and again), and what loading the
    data raises.
    """
    from learning.control import asks_for_control
    from learning.parts import devices_of
    from learning.task import load_task

    loaded = load_task(str(task)) if isinstance(task, str | Path) else task
    if not 1 <= versions <= VERSIONS_MAX:
        raise UsageProblem(
            "FLV-2216",
            f"a simulation of {versions} versions: it has to be 1 to {VERSIONS_MAX}",
            hint="choose another number of versions",
        )
    check_regions(regions)
    number = devices_of(loaded.data(), devices, DEVICES)
    config = FleetConfig(
        devices=number,
        attackers=attackers,
        misbehaving=misbehaving,
        seed=seed,
        alpha=alpha,
        round_s=ROUND_S,
        speed_spread=speed_spread,
        codec=codec,
    )
    quick = quick_policy(number, control=asks_for_control(loaded.config.extra))
    rules = policy or layered_policy(task=loaded.policy_overrides, defaults=quick)
    with temporary_folder("fluvial-simulation-") as folder:
        simulation = _Simulation(
            loaded,
            config,
            policy=rules,
            regions=regions,
            folder=folder,
            train_config=train_config or loaded.config,
            on_failure=on_failure,
        )
        return _run_to_its_end(simulation, versions, on_version)


def _run_to_its_end(
    simulation: _Simulation, versions: int, on_version: Callable[[VersionFacts], object] | None
) -> SimulationResult:
    """On a loop of its own, also where the caller has one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(simulation.to_the_end(versions, on_version))
    with ThreadPoolExecutor(1, thread_name_prefix="simulation") as beside:
        running = beside.submit(lambda: asyncio.run(simulation.to_the_end(versions, on_version)))
        try:
            return running.result()
        except BaseException:
            simulation.stopping.set()  # Ctrl-C comes to the caller's thread
            raise


class _Simulation:
    """The devices of one run, a fleet's, and the engine that they work for.

    ``stopping``, once set, ends it at the next round's end: nobody waits for its result any more.
    """

    def __init__(
        self,
        task: Task,
        config: FleetConfig,
        *,
        policy: Policy,
        regions: Mapping[str, int],
        folder: Path,
        train_config: TrainConfig,
        on_failure: Callable[[FailedRound, bool], None] | None = None,
    ) -> None:
        from learning.binding import bind
        from learning.cohorts import certified_cohorts
        from learning.parts import device_data, device_ids
        from learning.trial import metric_or_problem

        self.stopping = threading.Event()
        self._config = config
        shards = device_data(data := task.data(), config.devices, config.alpha, config.seed)
        self._metric, _ = metric_or_problem(task, config.seed)
        make_keys(folder, regions, guided=defence_named(policy.defence.kind).guided)
        first = first_version(
            task.name,
            task,
            regions=regions,
            policy=policy,
            folder=folder,
            seed=config.seed,
            metric=self._metric,
        )
        self.engine = engine = Engine(first, folder)
        self.task = bound = bind(task, first.genesis, engine.store.get_object)
        guide(engine.federation, bound, folder, seed=config.seed, train_config=train_config)
        self.evaluations = Evaluations(engine, first, bound, data.test)
        cohorts = certified_cohorts(policy, bound, shards)
        ids = device_ids(data, config.devices)
        self._members = populate(first.genesis, folder, config, ids, cohorts=cohorts)
        self._work = Rounds(
            self._members,
            bound,
            shards,
            layout=engine.bases.layout,
            codec=config.codec,
            train_config=train_config,
            message_bytes_max=sys.maxsize,
            now_ms=lambda: engine.now_ms,
            on_failure=on_failure or (lambda *_: None),  # the result counts them
        )
        self._rounds: list[tuple[float, int, Member, Base]] = []
        self._idle = list(self._members)
        self._published: dict[tuple[str, int, int], tuple[int, bool]] = {}
        self._versions: list[VersionFacts] = []
        self._since_s: dict[int, float] = {}
        self._unselected = 0

    async def to_the_end(
        self, versions: int, on_version: Callable[[VersionFacts], object] | None
    ) -> SimulationResult:
        await self.engine.play(self, lambda: self._told(versions, on_version))
        return SimulationResult(
            self.evaluations.parameters, self._metric, self._versions, self._updates(), self._work.failed
        )

    def next_moment(self) -> float:
        """The next round's end, or the next tick if that is sooner or everybody waits for a version."""
        federation = self.engine.federation
        tick = self.engine.clock.now_s + TICK_S
        if self._rounds:
            return min(tick, self._rounds[0][0])
        again = [one for one in self._members if 0 < one.failures < ROUNDS_FAILED_MAX]
        if not federation.updates_waiting and again:
            for member in again:
                member.last_base = -1
        elif not federation.updates_waiting and not self._unselected:
            judged = [update.verdict for update in self._updates()]
            raise simulated_dead_end(self.engine.head, judged, self._work.failing)
        return tick

    def begin(self, announced: Mapping[str, Announcement]) -> None:
        """Every free device whose region has a version that is new to it fetches it and, if it may, starts."""
        waiting, self._unselected, now_s = [], 0, self.engine.clock.now_s
        for member in self._idle:
            announcement = announced.get(member.author.region)
            if announcement is None or member.last_base >= announcement.version:
                waiting.append(member)
                continue
            base = self.engine.bases.announced(announcement)
            if not member.author.is_selected(base, now_s - self._since_s.setdefault(base.version, now_s)):
                waiting.append(member)
                self._unselected += is_ever_selected(base.policy, member.author.cohort)
                continue
            member.last_base = base.version
            due_s = self.engine.clock.now_s + member.round_seconds(self._config)
            heapq.heappush(self._rounds, (due_s, member.index, member, base))
        self._idle = waiting

    def play_until(self, now_s: float) -> None:
        """Every round that ends by then publishes."""
        self.engine.clock.advance_to(now_s)
        while self._rounds and self._rounds[0][0] <= self.engine.clock.now_s:
            _, _, member, base = heapq.heappop(self._rounds)
            self._contribute(member, base)
            self._idle.append(member)

    def _contribute(self, member: Member, base: Base) -> None:
        behaviour = next_behaviour(member, self._config)
        for what in self._work.make(member, base, behaviour):
            at = self.engine.log.append(what.topic, what.partition, what.key, what.value, ())
            honest = behaviour is Behaviour.HONEST
            self._published[what.region, at.partition, at.offset] = (member.index, honest)

    def _told(self, versions: int, on_version: Callable[[VersionFacts], object] | None) -> bool:
        """Every version that is new, evaluated; whether that is all."""
        head = min(versions, self.engine.head)
        for number in range(len(self._versions) + 1, head + 1):
            facts = self.evaluations.of(number)
            self._versions.append(facts)
            if on_version is not None and on_version(facts) is True:
                return True
        return len(self._versions) >= versions or self.stopping.is_set()

    def _updates(self) -> list[UpdateFacts]:
        """Every record of a device with its verdict, in the order of the logs, partition by partition."""
        found = []
        genesis, log = self.engine.genesis, self.engine.log
        for region, partition in genesis.slots:
            topic = verdicts_topic(genesis.task, region)
            for record in MemoryReader(log).read(topic, partition, 0, log.end(topic, partition)):
                verdict = decode_verdict(record.value or b"")
                known = self._published.get((region, partition, verdict.offset))
                if known is not None:
                    found.append(UpdateFacts(region, partition, verdict.offset, *known, verdict))
        return found
