"""Evaluates versions on held-out data, in order, and publishes what it finds."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, Final

from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord
from backends.observer import UNOBSERVED, Observer
from backends.outages import UNREADABLE, retry_through_outage
from backends.settings import Settings
from backends.store.task_store import TaskStore
from learning.slices import Slices
from learning.task import load_task
from learning.training import evaluate_parameters
from schemas.certificates import Trust
from schemas.checkpoints import decode_model
from schemas.manifests import Genesis, Manifest
from schemas.metrics import SCHEMA_VERSION, encode_metric
from schemas.records import Flaw, Unverified, announcement_in
from schemas.task_metric import LOSS
from schemas.topics import metrics_topic
from stream_apps.evaluator.naming import Naming
from stream_apps.evaluator.published_evaluations import read_evaluations

FLUSH_TIMEOUT_S: Final = 10.0

log = logging.getLogger("fluvial.evaluator")


class Evaluation:
    """Blocking; one call at a time. It goes on behind the newest evaluation that stands in the metrics topic."""

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        genesis: Genesis,
        reference: str,
        name: str,
        *,
        data: str = "",
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._store = store
        self._genesis = genesis
        self._layout = genesis.tensor_layout
        self._task = load_task(reference)
        self._held_out = self._task.held_out(data)
        self._slices = Slices(self._task, self._held_out)
        self._naming = Naming(genesis.metric or self._task.metric, before_metrics=not genesis.can_say_metric)
        self._writer = LogWriter(settings, f"fluvial-{name}", give_up=False, observer=observer)
        self._trust = Trust.from_pem(genesis.authorities)
        with LogReader(settings, f"fluvial-{name}-resume") as reader:
            standing = retry_through_outage(
                "read the newest evaluations", lambda: read_evaluations(reader, metrics_topic(genesis.task))
            )
        self.evaluated = standing[-1]["version"] if standing else -1
        self._created_at_ms = standing[-1]["created_at_ms"] if standing else 0
        observer.recalled(standing)

    def take(self, record: LogRecord) -> None:
        """Take one record of the models topic: evaluate up to the version that it announces, if a merger signed it."""
        found = announcement_in(record.value, record.timestamp_ms, self._trust)
        if isinstance(found, Unverified):
            log.warning("ignored announcement %d: %s", record.offset, _in_words(found))
        elif found.belongs_to(self._genesis.task, self._genesis.regions):
            self.catch_up(found.version)

    def catch_up(self, version: int) -> None:
        """Evaluate and publish every version up to ``version``."""
        while self.evaluated < version:
            number = self.evaluated + 1
            record, seconds = retry_through_outage(
                f"evaluate version {number}", partial(self._timed, number), UNREADABLE
            )
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
            log.info(
                "version %d: %s",
                number,
                ", ".join(
                    f"{k} {record[k]:.6g}" for k in dict.fromkeys((record["metric"], LOSS)) if k in record
                ),
                extra={"version": number},
            )

    def _timed(self, version: int) -> tuple[dict[str, Any], float]:
        """A version's record, and how long loading and evaluating it took; what failed before is not in it."""
        began_s = time.perf_counter()
        return self._evaluate(version), time.perf_counter() - began_s

    def _evaluate(self, version: int) -> dict[str, Any]:
        created_at_ms = int(str(self._store.facts(version).get("created_at_ms", 0)))
        manifest = self._store.manifest(version) if version else None
        model_sha256 = manifest.model_sha256 if manifest else self._genesis.model_sha256
        data = self._store.model_bytes(version, model_sha256)
        model = decode_model(data, self._layout)
        results = evaluate_parameters(self._task, model, self._held_out)
        named, metric = self._naming.fields(results)
        slices = self._slices.evaluate(model, metric)
        facts = _facts_of(manifest, _seconds_between(self._created_at_ms, created_at_ms)) if manifest else {}
        self._created_at_ms = created_at_ms or self._created_at_ms
        now_ms = round(time.time() * 1000)
        return named | slices | {
            "kind": "evaluation",
            "schema_version": SCHEMA_VERSION,
            "task": self._genesis.task,
            "version": version,
        } | facts | {
            "at_ms": created_at_ms or now_ms,
            "model_sha256": model_sha256,
            "model_bytes": len(data),
            "created_at_ms": created_at_ms,
            "evaluated_at_ms": now_ms,
        }  # fmt: skip


def _facts_of(manifest: Manifest, seconds: float | None) -> dict[str, Any]:
    """What a version's manifest says about how it came to be; ``seconds`` after the version before it."""
    return {
        "accepted": manifest.accepted,
        "refused": sum(manifest.counts.values()) - manifest.accepted,
        "staleness_mean": manifest.staleness_total / manifest.accepted,
        "staleness_max": manifest.staleness_max,
        "update_bytes": manifest.update_bytes,
        "seconds": seconds,
    } | {f"verdicts_{outcome}": count for outcome, count in manifest.counts.items()}


def _seconds_between(before_ms: int, after_ms: int) -> float | None:
    """None where one of the two times is not known."""
    return (after_ms - before_ms) / 1000 if before_ms and after_ms else None


def _in_words(unverified: Unverified) -> str:
    return unverified.detail if unverified.flaw is Flaw.UNDECODABLE else "not signed by a merger"
