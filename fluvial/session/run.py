"""One training run on the local stack, from ``up`` to the audit: what ``fluvial demo`` and ``fluvial run`` share.

::

    stack up → create the task → workers, merger, evaluator, fleet (a guardian, if its policy is guided)
      → versions evaluated → fleet and merger stop → every published update has its verdict → all stop → audit

Whatever ends a run early, Ctrl-C included, stops everything that the run started. After an orderly end the
stack stays up: the model lies in its store, and the audit can be repeated.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from aggregation.errors import TimeoutProblem
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import task_folder
from fluvial.console.child import ConsoleChild
from fluvial.local.stack import LocalStack
from fluvial.processes.supervisor import Supervisor
from fluvial.reading.audit_history import new_id, record_of, remember
from fluvial.reading.progress import Follower, Place, Published, RunFacts, read_journal
from fluvial.session.going_on import JOURNAL
from fluvial.session.patience import DeadEnd, Patience
from fluvial.session.plan import RunPlan, RunResult, VersionRow, warnings_about
from fluvial.session.progress_view import open_view
from fluvial.session.readiness import Readiness
from fluvial.session.setbacks import Setbacks
from fluvial.session.strikes import Chaos, Strike
from fluvial.session.task_of_run import task_of_run
from schemas.manifests import decode_manifest
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.proof.audit import AuditReport
    from fluvial.session.progress_view import View
    from fluvial.terminal.output import Output

POLL_S: Final = 0.2
DRAIN_S: Final = 90.0
LAST_EVALUATION_S: Final = 20.0


def run_session(plan: RunPlan, home: Path, output: Output) -> RunResult:
    """Run ``plan`` in ``home`` to its end.

    Raises FluvialError: what the stack, the task or a part of the run raises; FLV-6301, 6302, 6303. KeyboardInterrupt:
    on SIGINT, SIGTERM or SIGHUP, after everything was stopped.
    """
    began, started_at = time.monotonic(), time.time()
    check_policy(plan)
    stack = LocalStack(home, plan.store, output, secured=plan.secured)
    with _signals_interrupt(), _stopped_on_failure(stack, output):
        settings = stack.up()
        plan, task_file = task_of_run(plan, settings, output)
        session = _Session(plan, settings, task_file, output)
        with session.console or contextlib.nullcontext():
            session.train()
            rows = _rows(settings, task_file)
            output.say(f"auditing {rows[-1].version} versions: every one is computed again from the logs")
            audit = _audit(settings, task_file, output)
        return RunResult(
            plan=plan,
            task_file=task_file,
            settings=settings,
            facts=session.facts,
            journal=session.journal,
            published=session.published,
            published_before=session.published_before,
            missing=session.missing,
            strikes=session.strikes,
            rows=rows,
            audit=audit,
            training_seconds=session.training_seconds,
            seconds=time.monotonic() - began,
            started_at=started_at,
            notes=[*warnings_about(plan), *session.notes],
            dead_end=session.dead_end,
        )


class _Session:
    """The part of a run in which processes run."""

    def __init__(self, plan: RunPlan, settings: Settings, task_file: TaskFile, output: Output) -> None:
        self.plan = plan
        self.settings = settings
        self.task = task_file.task
        self.output = output
        self.guided = task_file.is_guided
        self.facts = RunFacts()
        folder = task_folder(settings.home, self.task)
        self.journal = folder / JOURNAL
        self.setbacks = Setbacks(self.journal, self.facts.failed_rounds, output)
        self.patience = Patience(
            self.facts, self.journal, stall_s=plan.stall_s, evaluation_s=plan.evaluation_s
        )
        self.dead_end: DeadEnd | None = None
        self.published: list[Published] = []
        self.published_before = len(read_journal(self.journal))
        self.missing: list[Place] = []
        self.strikes: list[Strike] = []
        self.notes: list[str] = []
        self.training_seconds = 0.0
        logs = settings.home / "logs" / self.task
        self.console = ConsoleChild(settings.home, logs, self.task, output) if plan.console else None
        self.workers = [
            (f"worker-{region}-{number}", region)
            for region in sorted(plan.regions)
            for number in range(plan.workers)
        ]

    def train(self) -> None:
        """Start every part, follow them until the versions are there, and stop them in order."""
        logs = self.settings.home / "logs" / self.task
        title = f"fluvial: {self.task}, {self.plan.devices} devices"
        with (
            Supervisor(self.settings.home, logs, self.output) as supervisor,
            Follower(self.settings, self.task, self.plan.regions, self.facts) as follower,
            open_view(
                self.output,
                title,
                self.plan.versions,
                each_version=self.plan.each_version,
                first=self.plan.first_version,
                footer=self._footer,
            ) as view,
        ):
            self._start(supervisor)
            with self._readiness() as readiness:
                self._until_trained(supervisor, follower, view, readiness)
            supervisor.stop(["fleet", "merger"])
            self._drain(supervisor, follower, view)
            self._last_evaluation(supervisor, follower, view)
            view.finish(self.facts)

    def _footer(self) -> str:
        """The console's address, once it has one."""
        return f"watch it live: {self.console.address}" if self.console and self.console.address else ""

    def _start(self, supervisor: Supervisor) -> None:
        plan, task = self.plan, ("--task", self.task)
        for name, region in self.workers:
            supervisor.start(name, ["worker", *task, "--region", region, "--name", name])
        supervisor.start("merger", ["merger", *task, "--name", "merger-0"])
        shown = ("--traceback",) if plan.traceback else ()
        if self.guided:
            supervisor.start("guardian", ["guardian", *task, "--name", "guardian-0", *shown])
        patience = ("--evaluation-seconds", str(plan.evaluation_s))
        supervisor.start("evaluator", ["evaluator", *task, *patience, *shown])
        numbers = {
            "--devices": plan.devices,
            "--attackers": plan.attackers,
            "--misbehaving": plan.misbehaving,
            "--seed": plan.seed,
            "--alpha": plan.alpha,
            "--versions": plan.versions,
            "--journal": self.journal,
        }
        arguments = [str(word) for pair in numbers.items() for word in pair]
        supervisor.start("fleet", ["fleet", *task, *shown, *arguments], may_finish=True)

    def _readiness(self) -> Readiness:
        plan = self.plan
        return Readiness(
            self.settings, self.task, workers=plan.workers, partitions=plan.regions, facts=self.facts
        )

    def _until_trained(
        self, supervisor: Supervisor, follower: Follower, view: View, readiness: Readiness
    ) -> None:
        began = time.monotonic()
        self.patience.look()
        victims = [name for name, _ in self.workers] + ["merger"]
        chaos = Chaos(
            supervisor, victims, times=self.plan.chaos, versions=self.plan.versions, seed=self.plan.seed
        )
        while (version := self.facts.version()) < self.plan.versions or not chaos.finished:
            self.patience.look()
            if self.patience.stalled:
                raise self._stalled(version, supervisor, readiness.missing())
            if self._is_at_a_dead_end() or self._is_good_enough():
                break
            self.setbacks.look()
            supervisor.check()
            follower.check()
            if self.console is not None:
                self.console.check()
            chaos.act(version, time.monotonic() - began, self.output)
            waits = [*readiness.missing(), *self.patience.long_work()]
            view.show("training", self.facts, supervisor.statuses(), waits)
            time.sleep(POLL_S)
        self.strikes = chaos.strikes
        self.training_seconds = time.monotonic() - began

    def _is_at_a_dead_end(self) -> bool:
        """Whether no further version can come. What was made by then is drained and audited as after any run.

        Finding FLV-6311 where there is no version at all.
        """
        self.dead_end = self.patience.dead_end()
        if self.dead_end is None:
            return False
        problem = self.dead_end.problem(self.task)
        if self.dead_end.version == 0:
            raise problem
        self.output.say(f"ending: {problem.message}")
        return True

    def _is_good_enough(self) -> bool:
        why = self.plan.aim.ends(self.facts.quality(), first_version=self.plan.first_version)
        if why:
            self.output.say(f"trained enough: {why}")
        return bool(why)

    def _drain(self, supervisor: Supervisor, follower: Follower, view: View) -> None:
        """Wait until every published update has its verdict; what has none after ``DRAIN_S`` is missing."""
        self.setbacks.look()
        self.published = read_journal(self.journal)
        places = [published.place for published in self.published]
        deadline = time.monotonic() + DRAIN_S
        while missing := self.facts.missing(places):
            if time.monotonic() > deadline:
                break
            supervisor.check()
            follower.check()
            view.show(f"waiting for {len(missing)} verdicts", self.facts, supervisor.statuses())
            time.sleep(POLL_S)
        self.missing = missing

    def _last_evaluation(self, supervisor: Supervisor, follower: Follower, view: View) -> None:
        """Let the evaluator reach the head: the merger may have made one more version before it stopped."""
        head = TaskStore(open_object_store(self.settings.store), self.task).head()
        version = head.version if head is not None else 0
        deadline = time.monotonic() + LAST_EVALUATION_S
        while self.facts.version() < version:
            if time.monotonic() > deadline:
                self.notes.append(f"version {version} was committed and not evaluated any more")
                return
            supervisor.check()
            follower.check()
            view.show(f"waiting for the evaluation of version {version}", self.facts, supervisor.statuses())
            time.sleep(POLL_S)

    def _stalled(self, version: int, supervisor: Supervisor, waits: Sequence[str]) -> TimeoutProblem:
        states = ", ".join(f"{child.name} {child.state}" for child in supervisor.statuses())
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.facts.outcomes().items())
        waited = f"\n  still waiting for {', '.join(waits)}" if waits else ""
        return TimeoutProblem(
            "FLV-6303",
            f"nobody has worked for {self.patience.stall_s:.0f} s: no device trains, no verdict and no version came "
            f"after version {version}",
            where=f"{states}\n  verdicts so far: {outcomes or 'none'}{waited}",
            hint=f"see the logs in {supervisor.log_folder}; `fluvial doctor` checks machine and stack; "
            "`--stall-seconds N` waits longer",
        )


def check_policy(plan: RunPlan) -> None:
    """Refuse a wrong policy before anything is started: UsageProblem FLV-2001 to 2003, or 22xx for the task file."""
    from fluvial.local.policies import layered_policy, require_reachable
    from learning.task import load_task

    task, said = load_task(plan.reference, plan.given), plan.policy_text
    policy = layered_policy(explicit=said, task=task.policy_overrides, defaults=plan.policy_defaults)
    require_reachable(policy, plan.devices)


def _audit(settings: Settings, task_file: TaskFile, output: Output) -> AuditReport:
    from fluvial.proof.audit import audit_task

    report = audit_task(settings, task_file, output=output)
    command = f"fluvial audit --task {report.task} --to {report.last}"
    problem = remember(
        settings.home, report.task, record_of(report.document(), run_id=new_id(), command=command)
    )
    if problem:
        output.say(f"note: this audit is not in the history: {problem}")
    return report


def _rows(settings: Settings, task_file: TaskFile) -> list[VersionRow]:
    """Every version above 0, from the store.

    Raises TimeoutProblem: FLV-6303, there is none.
    """
    store = TaskStore(open_object_store(settings.store), task_file.task)
    head = store.head()
    rows = []
    for version in range(1, (head.version if head is not None else 0) + 1):
        data = store.manifest_bytes(version)
        rows.append(VersionRow(version, sha256_hex(data), decode_manifest(data)))
    if not rows:
        raise TimeoutProblem("FLV-6303", "the run ended without any version", hint="see `fluvial doctor`")
    return rows


@contextlib.contextmanager
def _stopped_on_failure(stack: LocalStack, output: Output) -> Iterator[None]:
    """If the block fails, stop the stack again, unless it ran before (with Prometheus or without)."""
    was_up = all(service.state == "running" for service in stack.status() if service.name != "prometheus")
    try:
        yield
    except BaseException:
        if not was_up:
            for name in stack.down():
                output.say(f"stopped {name}")
        raise


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does: through every clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
