"""``fluvial chaos`` from beginning to end.

::

    own home, disks, stack, task → processes, through proxies → the first version
      → faults while the fleet publishes → everything healed → the fleet goes on a while, then stops
      → every log drains → corruptions, one at a time → processes stop → offline check and audit → result
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aggregation.errors import TimeoutProblem
from backends import keys
from backends.kafka.reading import LogReader
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import keys_folder, task_folder
from backends.variables import variables_of
from fluvial.processes.supervisor import Limits, Supervisor
from fluvial.proof.chaos.corruption import Corruption, Corruptor
from fluvial.proof.chaos.engine import Engine
from fluvial.proof.chaos.following import Turns
from fluvial.proof.chaos.ground import Ground, open_ground
from fluvial.proof.chaos.history import FaultRecord, count_publishes, write_history
from fluvial.proof.chaos.home import chaos_home, hangup_interrupts
from fluvial.proof.chaos.injecting import Injector
from fluvial.proof.chaos.links import Links
from fluvial.proof.chaos.parts import Cast, Parts
from fluvial.proof.chaos.plan import TASK, ChaosPlan
from fluvial.proof.chaos.recovery import Recovery, read_appends, recoveries
from fluvial.proof.chaos.result import ChaosResult
from fluvial.proof.chaos.schedule import BROKER, FLEET, plan_faults
from fluvial.proof.chaos.verify import audit, check_offline
from fluvial.proof.chaos.view import open_view
from fluvial.proof.chaos.watching import Tally, Watch
from schemas.certificates import CONTROL, Role
from schemas.topics import aggregates_topic, models_topic, updates_topic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backends.tasks import TaskFile
    from fluvial.terminal.output import Output

FIRST_VERSION_TIMEOUT_S: Final = 180.0
SETTLE_S: Final = 10.0
SETTLE_S_MAX: Final = 120.0
"""The fleet goes on at least and at most so long after everything is whole."""
FLEET_STOP_S: Final = 30.0
DRAIN_TIMEOUT_S: Final = 150.0
GO_ON_TIMEOUT_S: Final = 180.0
QUIET_S: Final = 3.0
"""Nothing may have moved for so long before the run counts as drained."""
_PATIENT: Final = Limits(start_deaths_max=1000, restarts_max=10_000, backoff_s_max=2.0)


def run_chaos(plan: ChaosPlan, home: Path, output: Output) -> ChaosResult:
    """Run ``plan`` in ``home/chaos`` to its end.

    Raises FluvialError: what the stack or a part raises; FLV-6402 to 6406; FLV-1016. KeyboardInterrupt: on SIGINT,
    SIGTERM or SIGHUP, after everything was stopped and removed.
    """
    began = time.monotonic()
    history = home / f"chaos-{plan.seed}-history.jsonl"
    with (
        hangup_interrupts(),
        chaos_home(home, output, keep=plan.keep) as own,
        open_ground(plan, own, output) as ground,
    ):
        from fluvial.local.create import create_task

        task_file = create_task(
            ground.settings,
            reference=TASK,
            name=plan.task,
            regions=dict(plan.regions),
            policy_text=plan.policy_text,
            policy_defaults=plan.policy_defaults,
            seed=plan.seed,
            output=output,
        )
        ground.ways.admit(ground.settings, task_file.task, plan.regions, guided=task_file.is_guided)
        with own.kept_on_failure():
            result = _run(plan, ground, task_file, output, history)
        result.total_seconds = time.monotonic() - began
        own.keep = own.keep or result.problem() is not None
        result.home = own.folder if own.keep else None
        return result


def _run(plan: ChaosPlan, ground: Ground, task_file: TaskFile, output: Output, history: Path) -> ChaosResult:
    run = _Run(plan, ground, task_file, output, history)
    run.to_the_end()
    output.say("checking offline: every verdict, window and version is computed again from the logs")
    check = check_offline(ground.reader, task_file, run.journal, output)
    report = audit(ground.reader, task_file, output)
    return ChaosResult(
        seed=plan.seed,
        seconds=plan.seconds,
        counts=run.counts,
        faults=run.records,
        dropped=run.dropped,
        publishes=count_publishes(run.journal),
        check=check,
        audit=report,
        security=plan.security,
        outcomes=run.outcomes,
        guided_versions=run.guided_versions(),
        recoveries=run.recoveries,
        corruptions=run.corruptions,
        skipped=ground.skipped,
        history=history,
        undrained=run.undrained,
        restarts=run.restarts,
    )


class _Run:
    """The part of a run in which processes run."""

    def __init__(
        self, plan: ChaosPlan, ground: Ground, task_file: TaskFile, output: Output, history: Path
    ) -> None:
        self.plan = plan
        self.ground = ground
        self.settings = ground.settings
        self.reader = ground.reader
        self.task_file = task_file
        self.task = task_file.task
        self.output = output
        self.history = history
        self.crew = Cast(
            plan.regions,
            plan.workers,
            store=plan.cluster is None and self.settings.store.kind != "file",
            broker=plan.cluster is None,
            guided=task_file.is_guided,
        )
        self.journal = task_folder(self.settings.home, self.task) / "journal.jsonl"
        self.tally = Tally(self.journal)
        self.counts: dict[str, int] = {}
        self.records: list[FaultRecord] = []
        self.dropped = 0
        self.undrained = 0
        self.outcomes: dict[str, int] = {}
        self.recoveries: list[Recovery] = []
        self.corruptions: list[Corruption] = []
        self.restarts: dict[str, int] = {}

    def to_the_end(self) -> None:
        """Everything from the first process to the last."""
        logs = self.settings.home / "logs" / self.task
        began_at = time.time()
        title = f"fluvial chaos: seed {self.plan.seed}, {self.plan.devices} devices"
        try:
            with (
                Supervisor(self.settings.home, logs, self.output, limits=_PATIENT) as helpers,
                Supervisor(self.settings.home, logs, self.output, limits=_PATIENT) as supervisor,
                Parts(self.crew, self.ground.stack, supervisor) as parts,
                Watch(self.reader, self.task, self.plan.regions) as watch,
                open_view(self.output, title) as view,
            ):
                links = self._start(helpers, parts)
                injector = Injector(parts, links, self.ground.disks if "disk" in self.ground.kinds else None)
                faults = plan_faults(
                    self.plan.seed, self.plan.seconds, self.ground.kinds, self.crew.targets()
                )
                engine = Engine(faults, injector, parts, self.output)
                turns = Turns(supervisor, watch, view, engine, self.tally)
                try:
                    self._phases(turns, engine, parts, supervisor)
                finally:
                    self.outcomes = dict(watch.facts.outcomes())
                    self.records, self.counts = engine.records, engine.counts
                    self.dropped = len(engine.dropped)
                    self.restarts = {child.name: child.restarts for child in supervisor.statuses()}
        finally:
            write_history(self.history, self.journal, self.records, began_at)

    def guided_versions(self) -> int:
        """How many versions name a guide."""
        store = TaskStore(open_object_store(self.reader.store), self.task)
        head = store.head()
        versions = range(1, head.version + 1 if head is not None else 1)
        return sum(bool(store.manifest(version).guide_sha256) for version in versions)

    def _start(self, helpers: Supervisor, parts: Parts) -> Links | None:
        links = None
        if self.ground.binary is not None:
            links = Links(self.ground.links, self.settings)
            links.start(self.ground.binary, helpers)
        fleet = {
            "--devices": self.plan.devices,
            "--attackers": self.plan.attackers,
            "--seed": self.plan.seed,
            "--journal": self.journal,
        }
        folder = keys_folder(self.settings.home, self.task)
        parts.start(
            self.task,
            fleet=fleet,
            environments={name: self._environment(name, links) for name in self.crew.processes},
            guardian_keys={
                name: keys.issue(folder, CONTROL, Role.GUARDIAN, name, keys.Keeping(self.settings.key))
                for name in self.crew.guardians
            },
        )
        return links

    def _environment(self, process: str, links: Links | None) -> dict[str, str]:
        """Where a process finds broker and store, and how it gets in: as its role, through its link."""
        settings = self.ground.ways.settings(self.settings.home, self.crew.roles[process])
        return variables_of(settings if links is None else links.through(process, settings))

    def _phases(self, turns: Turns, engine: Engine, parts: Parts, supervisor: Supervisor) -> None:
        turns.until(
            "starting",
            lambda: turns.facts.version() > 0,
            FIRST_VERSION_TIMEOUT_S,
            self._no_first_version(supervisor),
        )
        began = time.monotonic()
        while (elapsed_s := time.monotonic() - began) < self.plan.seconds:
            engine.act(elapsed_s)
            turns.step("faults", self.plan.seconds - elapsed_s)
        self.output.say("healing everything")
        engine.heal()
        self._settle(turns, engine)
        supervisor.stop([FLEET], FLEET_STOP_S)
        self._drain(turns, engine)
        self.recoveries = recoveries(
            engine.records,
            self.crew,
            read_appends(self.reader, self.task, self.plan.regions),
            turns.facts,
        )
        if "corrupt" in self.ground.kinds:
            self._corrupt(turns, engine, parts, supervisor)
            self._drain(turns, engine)

    def _settle(self, turns: Turns, engine: Engine) -> None:
        """Let the fleet go on until there is a version after the healing, so that the last recoveries can be seen."""
        healed, before = time.monotonic(), turns.facts.version()
        while (waited_s := time.monotonic() - healed) < SETTLE_S_MAX:
            if waited_s >= SETTLE_S and turns.facts.version() > before:
                return
            engine.heal()
            turns.step("settling")
        self.output.say(f"no version after {before} within {SETTLE_S_MAX:.0f} s of the healing")

    def _corrupt(self, turns: Turns, engine: Engine, parts: Parts, supervisor: Supervisor) -> None:
        """Damage what is stored, thing by thing; then the fleet publishes once more on what was put back."""
        corruptor = Corruptor(
            self.settings,
            self.task_file,
            parts,
            turns,
            seed=self.plan.seed,
            kafka_data=self.ground.disks.data(BROKER) or self.settings.home / "data" / "kafka",
            logs=supervisor.log_folder,
            journal=self.journal,
            reporter=self.output,
        )
        self.corruptions, records = corruptor.all(len(engine.records) + len(engine.dropped) + 1)
        engine.records.extend(records)
        supervisor.restart(FLEET)
        before = turns.facts.version()
        turns.until(
            "going on after the corruptions",
            lambda: turns.facts.version() > before,
            GO_ON_TIMEOUT_S,
            TimeoutProblem(
                "FLV-6409",
                f"no version after {before} within {GO_ON_TIMEOUT_S:.0f} s after everything was put back",
                hint="repeat it with `fluvial chaos --keep` and read the logs in its home",
            ),
        )
        supervisor.stop([FLEET], FLEET_STOP_S)

    def _no_first_version(self, supervisor: Supervisor) -> TimeoutProblem:
        return TimeoutProblem(
            "FLV-6404",
            f"there was no first version within {FIRST_VERSION_TIMEOUT_S:.0f} s, before any fault",
            where=", ".join(f"{child.name} {child.state}" for child in supervisor.statuses()),
            hint="repeat it with `fluvial chaos --keep` and read the logs in its home; `fluvial doctor`",
        )

    def _drain(self, turns: Turns, engine: Engine) -> None:
        """Wait until every record has its verdict and nothing moves; what has none after the limit is undrained."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        with LogReader(self.reader, "fluvial-chaos-drain") as reader:
            before, quiet_since = self._ends(reader), time.monotonic()
            while True:
                ends = self._ends(reader)
                if ends != before:
                    before, quiet_since = ends, time.monotonic()
                self.undrained = self._unjudged(ends, turns)
                if not self.undrained and time.monotonic() - quiet_since >= QUIET_S:
                    return
                if time.monotonic() > deadline:
                    self.output.say(f"{self.undrained} records have no verdict after {DRAIN_TIMEOUT_S:.0f} s")
                    return
                engine.heal()
                turns.step(f"draining: {self.undrained} without a verdict", deadline - time.monotonic())

    def _ends(self, reader: LogReader) -> dict[tuple[str, int], int]:
        regions = self.plan.regions.items()
        logs = [
            (topic(self.task, region), partition)
            for region, partitions in regions
            for partition in range(partitions)
            for topic in (updates_topic, aggregates_topic)
        ]
        logs.append((models_topic(self.task), 0))
        return {log: reader.bounds(*log)[1] for log in logs}

    def _unjudged(self, ends: Mapping[tuple[str, int], int], turns: Turns) -> int:
        facts = turns.facts
        wanted = sum(
            ends[updates_topic(self.task, region), partition]
            for region, partitions in self.plan.regions.items()
            for partition in range(partitions)
        )
        with facts.lock:
            return max(0, wanted - len(facts.verdicts))
