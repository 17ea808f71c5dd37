"""Evaluates versions on held-out data, in order, and publishes what it finds."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Revoke
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord
from backends.observer import UNOBSERVED, Observer
from backends.outages import UNREADABLE, retry_through_outage
from backends.settings import Settings
from backends.store.task_store import TaskStore
from schemas.announcing import Announcers
from schemas.checkpoints import decode_model
from schemas.manifest_seals import require_sealed
from schemas.manifests import Genesis, Manifest, decode_manifest
from schemas.metrics import PROBLEM, PROBLEM_ID, SCHEMA_VERSION, encode_metric
from schemas.objects import sha256_hex
from schemas.records import Flaw, Unverified
from schemas.task_metric import LOSS, named_in_record
from schemas.topics import metrics_topic
from stream_apps.evaluator.bench import Bench, BenchClosedError, EvaluationProblem, problem_of
from stream_apps.evaluator.bench_messages import Opening, Trouble
from stream_apps.evaluator.limits import EVALUATION_S_MAX
from stream_apps.evaluator.naming import Naming
from stream_apps.evaluator.published_evaluations import read_evaluations

FLUSH_TIMEOUT_S: Final = 10.0

log = logging.getLogger("fluvial.evaluator")


class Evaluation:
    """Blocking; one call at a time. It goes on behind the newest evaluation that stands in the metrics topic.

    No version holds it up for ever: one whose evaluation fails, is not finite or takes too long is published so.
    """

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        genesis: Genesis,
        reference: str,
        name: str,
        *,
        data: str = "",
        seconds_max: float = EVALUATION_S_MAX,
        observer: Observer = UNOBSERVED,
    ) -> None:
        """``data``: the place of held-out examples of one's own. ``seconds_max``: how long a version may take.

        Raises what loading the task and its data raise.
        """
        frozen = genesis.model.frozen
        opening = Opening(
            genesis.canonical(), None if frozen is None else store.get_object(frozen.sha256), data
        )
        self._bench = Bench(
            reference, opening, seconds_max=seconds_max
        )  # it loads while we look what is published
        self._seconds_max = seconds_max
        self._observer = observer
        self._store = store
        self._genesis = genesis
        self._layout = genesis.tensor_layout
        self._writer = LogWriter(settings, f"fluvial-{name}", give_up=False, observer=observer)
        self._trust = genesis.trust
        self._announcers = Announcers(genesis.trust, genesis.task)
        head = retry_through_outage("find the newest version", store.head)
        newest = 0 if head is None else head.version
        with LogReader(settings, f"fluvial-{name}-resume") as reader:
            standing = retry_through_outage(
                "read the newest evaluations",
                lambda: read_evaluations(reader, metrics_topic(genesis.task), newest),
            )
        self._vouched: dict[int, str] = {}
        self.evaluated = standing[-1]["version"] if standing else -1
        self._created_at_ms = standing[-1]["created_at_ms"] if standing else 0
        observer.recalled(standing)
        self._bench.open()
        declared = genesis.metric or self._bench.metric
        self._naming = Naming(declared, before_metrics=not genesis.can_say_metric)
        self._metric = declared

    def take(self, record: LogRecord) -> None:
        """Take one record of the models topic: evaluate up to the version that it announces, if a merger signed it."""
        found = self._announcers.read(record.value, record.timestamp_ms)
        if isinstance(found, Revoke):
            log.info("announcement %d: certificate %s was revoked", record.offset, found.certificate_serial)
        elif isinstance(found, Unverified):
            log.warning("ignored announcement %d: %s", record.offset, _in_words(found))
        elif found.belongs_to(self._genesis.task, self._genesis.regions):
            self._vouched = {at: one for at, one in self._vouched.items() if at > self.evaluated}
            self._vouched[found.version] = found.manifest_sha256
            self.catch_up(found.version)

    def close(self) -> None:
        """Leave what is under way: the next evaluator begins with that version. From any thread."""
        self._bench.close()

    def catch_up(self, version: int) -> None:
        """Evaluate and publish every version up to ``version``; one that cannot be evaluated is published as such."""
        while self.evaluated < version:
            number = self.evaluated + 1
            try:
                record, seconds = self._evaluate(number)
            except BenchClosedError:
                return
            self._writer.append(
                metrics_topic(self._genesis.task),
                encode_metric(record),
                key=self._genesis.task.encode(),
            )
            retry_through_outage(
                f"publish the evaluation of version {number}", lambda: self._writer.flush(FLUSH_TIMEOUT_S)
            )
            self.evaluated = number
            self._observer.evaluated(record, seconds)
            if PROBLEM not in record:
                names = dict.fromkeys((record["metric"], LOSS))
                shown = ", ".join(f"{name} {record[name]:.6g}" for name in names if name in record)
                log.info("version %d: %s", number, shown, extra={"version": number})

    def _evaluate(self, version: int) -> tuple[dict[str, Any], float]:
        """A version's record, and how long loading and evaluating it took."""
        loaded = _NOTHING
        try:
            loaded = self._read(version)
            began_s = time.perf_counter()
            judged = self._judged(version, loaded.model)
            seconds = loaded.seconds + time.perf_counter() - began_s
        except EvaluationProblem as problem:
            log.warning("version %d is not evaluated: %s", version, problem, extra={"version": version})
            judged, seconds = self._unjudged(problem), 0.0
        manifest, created_at_ms = loaded.manifest, loaded.created_at_ms
        facts = _facts_of(manifest, _seconds_between(self._created_at_ms, created_at_ms)) if manifest else {}
        self._created_at_ms = created_at_ms or self._created_at_ms
        now_ms = round(time.time() * 1000)
        return judged | {
            "kind": "evaluation",
            "schema_version": SCHEMA_VERSION,
            "task": self._genesis.task,
            "version": version,
        } | facts | {
            "at_ms": created_at_ms or now_ms,
            "model_sha256": loaded.model_sha256,
            "model_bytes": loaded.model_bytes,
            "created_at_ms": created_at_ms,
            "evaluated_at_ms": now_ms,
        }, seconds  # fmt: skip

    def _judged(self, version: int, model: npt.NDArray[np.float32]) -> dict[str, Any]:
        """What the record says of the model. Raises EvaluationProblem."""
        named, metric = self._naming.fields(self._bench.evaluate(model))
        self._metric = metric
        if metric.name in named and not math.isfinite(named[metric.name]):
            message = f"evaluate() reports the {metric.name} {named[metric.name]}, which judges the task"
            raise EvaluationProblem("not_finite", Trouble("FLV-2209", message), named)
        try:
            return named | self._bench.parts(model, metric)
        except EvaluationProblem as problem:
            log.warning("the classes and cohorts of version %d are not evaluated: %s", version, problem)
            return named

    def _unjudged(self, problem: EvaluationProblem) -> dict[str, Any]:
        """What the record says of a version that has no evaluation: why, and what there is of it."""
        judged: dict[str, Any] = {LOSS: None}
        if problem.numbers:
            judged |= self._naming.fields(problem.numbers)[0]
        elif self._metric is not None:
            judged |= named_in_record(self._metric) | {"metric_value": None}
        return judged | {PROBLEM: problem.problem, PROBLEM_ID: problem.trouble.error_id}

    def _read(self, version: int) -> _Loaded:
        """A version from the store, through any outage. EvaluationProblem where the store has it not for too long."""
        began_s = time.monotonic()

        def load() -> _Loaded | IntegrityProblem:
            try:
                return self._load(version)
            except IntegrityProblem as problem:
                if time.monotonic() - began_s < self._seconds_max:
                    raise
                return problem

        found = retry_through_outage(f"read version {version}", load, UNREADABLE)
        if isinstance(found, IntegrityProblem):
            raise problem_of(found)
        return found

    def _load(self, version: int) -> _Loaded:
        began_s = time.perf_counter()
        created_at_ms = self._store.created_at_ms(version) or 0
        manifest = self._manifest(version) if version else None
        model_sha256 = manifest.model_sha256 if manifest else self._genesis.model_sha256
        data = self._store.model_bytes(version, model_sha256)
        model = decode_model(data, self._layout)
        seconds = time.perf_counter() - began_s
        return _Loaded(model, manifest, model_sha256, len(data), created_at_ms, seconds)

    def _manifest(self, version: int) -> Manifest:
        """A version's manifest, which the announced one names as itself or, from parent to parent, as one before it.

        IntegrityProblem FLV-3304 where what stands in the store is another.
        """
        if version not in self._vouched:
            for number in range(min((one for one in self._vouched if one > version), default=0), version, -1):
                self._vouched[number - 1] = self._checked_manifest(number).parent_sha256
        return self._checked_manifest(version)

    def _checked_manifest(self, version: int) -> Manifest:
        data = self._store.manifest_bytes(version)
        vouched = self._vouched.get(version, sha256_hex(data))
        if sha256_hex(data) != vouched:
            raise IntegrityProblem(
                "FLV-3304",
                f"the manifest of version {version} is {sha256_hex(data)[:12]}, announced was {vouched[:12]}",
                where=self._store.store.describe(),
                hint="restore it from a backup, see docs/runbooks/damaged-object.md",
            )
        manifest = decode_manifest(data)
        require_sealed(manifest, self._trust)
        return manifest


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A version as the store has it."""

    model: npt.NDArray[np.float32]
    manifest: Manifest | None
    model_sha256: str
    model_bytes: int
    created_at_ms: int
    seconds: float


_NOTHING: Final = _Loaded(np.zeros(0, np.float32), None, "", 0, 0, 0.0)


def _facts_of(manifest: Manifest, seconds: float | None) -> dict[str, Any]:
    """What a version's manifest says about how it came to be; ``seconds`` after the version before it."""
    return {
        "accepted": manifest.accepted,
        "refused": sum(manifest.counts.values()) - manifest.accepted - manifest.dropped,
        "staleness_mean": manifest.staleness_total / manifest.accepted,
        "staleness_max": manifest.staleness_max,
        "update_bytes": manifest.update_bytes,
        "seconds": seconds,
    } | {f"verdicts_{outcome}": count for outcome, count in manifest.counts.items()}


def _seconds_between(before_ms: int, after_ms: int) -> float | None:
    """None where one of the two times is not known."""
    return (after_ms - before_ms) / 1000 if before_ms and after_ms else None


def _in_words(unverified: Unverified) -> str:
    told = unverified.flaw in {Flaw.UNDECODABLE, Flaw.REVOKED}
    return unverified.detail if told else "not signed by a merger"
