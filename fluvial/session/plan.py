"""What a run is asked to do, and what it came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import Finding, FluvialError
from aggregation.fold.rejections import ACCEPTED, CONTROL
from aggregation.weights.fixed_point import WEIGHT_ONE
from fluvial.local.stack import StoreChoice
from fluvial.reading.progress import Place, Published, RunFacts
from fluvial.reading.quality import Quality
from fluvial.reading.spending import spending_document
from fluvial.session.aim import NO_AIM, Aim
from fluvial.session.going_on import Further
from fluvial.session.limits import STALL_S
from fluvial.session.patience import DeadEnd
from fluvial.session.strikes import Strike
from producers.fleet.behaviours import ATTACKS
from schemas.manifests import Manifest
from schemas.objects import model_key
from stream_apps.evaluator.limits import EVALUATION_S_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from aggregation.fold.events import Verdict
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.proof.audit import AuditReport

HONEST: Final = "honest"
"""The label of ``producers.fleet.behaviours.Behaviour.HONEST`` in a journal."""
_MISSING_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Defended:
    """What became of some updates: how many there were, how many were refused, what the others weigh on average.

    ``weight`` is of 1.0 for an update on the newest version that no defence makes lighter; 0.0 where none counts.
    """

    updates: int
    refused: int
    weight: float

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Defended:
        """Of these verdicts."""
        judged = list(verdicts)
        weights = [one.weight / WEIGHT_ONE for one in judged if one.outcome == ACCEPTED]
        mean = sum(weights) / len(weights) if weights else 0.0
        return cls(len(judged), len(judged) - len(weights), mean)

    @property
    def refused_share(self) -> float:
        """How many of 1 were refused."""
        return self.refused / self.updates if self.updates else 0.0


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What to run. ``regions`` maps each region to its number of partitions; ``workers`` are per region.

    ``given``: settings over the task's CONFIG. ``named``: the name is the user's choice. ``further``: the task to go on
    with; then ``versions`` more are made on top of ``first_version``, which the run fills in with the sum.
    ``secured``: as ``LocalStack`` takes it. ``policy_from``: where ``policy_text`` was read, as a command names it.
    """

    reference: str
    name: str
    regions: Mapping[str, int]
    devices: int
    versions: int
    attackers: int = 0
    misbehaving: int = 0
    seed: int = 0
    workers: int = 1
    chaos: int = 0
    alpha: float = 1.0
    store: StoreChoice = "auto"
    secured: bool | None = None
    policy_text: str = ""
    policy_from: str = ""
    policy_defaults: str = ""
    each_version: bool = False
    console: bool = False
    traceback: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    further: Further | None = None
    first_version: int = 0
    aim: Aim = NO_AIM
    origin: str | None = None
    stall_s: float = STALL_S
    evaluation_s: float = EVALUATION_S_MAX


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version as its manifest has it."""

    version: int
    manifest_sha256: str
    manifest: Manifest


@dataclass(kw_only=True)
class RunResult:
    """What a run came to. ``problem()`` says whether that is well."""

    plan: RunPlan
    task_file: TaskFile
    settings: Settings
    facts: RunFacts
    journal: Path
    published: list[Published]
    published_before: int = 0
    missing: list[Place]
    strikes: list[Strike]
    rows: list[VersionRow]
    audit: AuditReport
    training_seconds: float
    seconds: float
    started_at: float
    notes: list[str] = field(default_factory=list)
    dead_end: DeadEnd | None = None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.task_file.task

    @property
    def quality(self) -> Quality:
        """The task's metric, and what every evaluated version above 0 reached."""
        return self.facts.quality()

    @property
    def spending(self) -> dict[str, Any] | None:
        """What it cost by the price list; None where no window told its cost."""
        facts = self.facts
        with facts.lock:
            quality = Quality(
                facts.quality().metric, {one.version: one.values for one in facts.evaluations.values()}
            )
            windows = {
                row.version: [(one.region, one.partition, one.sequence) for one in row.manifest.inputs]
                for row in self.rows
            }
            return spending_document(quality, facts.costs, windows)

    @property
    def model_place(self) -> str:
        """Where the last version's model lies in the store."""
        return self.place_of(self.rows[-1].version)

    def place_of(self, version: int) -> str:
        """Where a version's model lies in the store."""
        store, key = self.settings.store, model_key(self.task, version)
        return f"{store.url}/{key}" if store.kind == "file" else f"{store.url}/{store.bucket}/{key}"

    @property
    def updates_per_second(self) -> float:
        """Updates judged per second of training, without those of earlier runs of the task."""
        judged = max(0, sum(self.facts.outcomes().values()) - self.published_before)
        return judged / self.training_seconds if self.training_seconds else 0.0

    @property
    def updates_published(self) -> int:
        """Updates that stand in the log: acknowledged ones, and those that were judged unheard by the fleet."""
        judged = {place for place, one in self.facts.verdicts.items() if one.verdict.outcome != CONTROL}
        return len(judged | {published.place for published in self.published})

    @property
    def honest_refused(self) -> Counter[str]:
        """How many updates of honest devices were refused, by outcome: the fleet's journal knows who was."""
        with self.facts.lock:
            outcomes = [
                self.facts.verdicts[one.place].verdict.outcome
                for one in self.published
                if one.behaviour == HONEST and one.place in self.facts.verdicts
            ]
        return Counter(outcome for outcome in outcomes if outcome != ACCEPTED)

    @property
    def defended(self) -> dict[str, Defended]:
        """What became of well-formed updates: of honest devices (``honest``) and of those that attack (``attacks``)."""
        attacks = {behaviour.label for behaviour in ATTACKS}
        with self.facts.lock:
            judged = [
                (one.behaviour, self.facts.verdicts[one.place].verdict)
                for one in self.published
                if one.place in self.facts.verdicts
            ]
        return {
            "honest": Defended.of(verdict for behaviour, verdict in judged if behaviour == HONEST),
            "attacks": Defended.of(verdict for behaviour, verdict in judged if behaviour in attacks),
        }

    def problem(self) -> FluvialError | None:
        """The first thing that is not as it must be: a missing verdict, two verdicts, a difference, a dead end."""
        command = f"fluvial audit --task {self.task}"
        if self.missing:
            shown = ", ".join(_shown(self.task, place) for place in self.missing[:_MISSING_SHOWN])
            return Finding(
                "FLV-6304",
                f"{len(self.missing)} of {len(self.published)} published updates have no verdict",
                where=shown,
                hint=f"`{command}` tells whether the versions are right; the journal is {self.journal}",
            )
        if self.facts.conflicts:
            place, (one, other) = next(iter(self.facts.conflicts.items()))
            return Finding(
                "FLV-6305",
                f"{len(self.facts.conflicts)} updates have two verdicts, as {one.outcome} and {other.outcome}",
                where=_shown(self.task, place),
                hint=f"two workers disagree, a defect: please report it with the output of `{command}`",
            )
        if not self.audit.identical:
            return Finding(
                "FLV-6306",
                f"the audit of {self.audit.versions} versions found a difference",
                where="\n  ".join(str(finding) for finding in self.audit.findings.shown[:_MISSING_SHOWN]),
                hint=f"`{command}` shows all of it",
            )
        return None if self.dead_end is None else self.dead_end.problem(self.task)


def warnings_about(plan: RunPlan) -> list[str]:
    """What its reader should know about a run, whatever came out of it."""
    honest = plan.devices - plan.attackers - plan.misbehaving
    if plan.attackers and honest <= plan.attackers:
        split = f"{plan.attackers} of {plan.devices} devices attack and {honest} are honest"
        return [f"{split}: no defence holds without an honest majority, so do not wonder about the model"]
    return []


def _shown(task: str, place: Place) -> str:
    return f"fl.{task}.updates.{place.region}[{place.partition}]@{place.offset}"
