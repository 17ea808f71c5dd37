"""Fill the metrics of mergers, evaluators, guardians, fleets, canaries and auditors."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aggregation.codecs import CODECS
from aggregation.errors import FluvialError
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import Headers, LogRecord
from backends.observer import LastScrape
from backends.observing.drift import Drift, show_drift, usual_norm
from backends.observing.metrics import Metrics
from backends.observing.process import OTHER, MetricsObserver, error_id
from backends.observing.times_header import unpack
from backends.observing.worker import WorkerMetrics
from schemas.manifests import Manifest, Metric
from schemas.task_metric import is_finite, metric_of, reaches, values_of, way_of

WINDOWS_REMEMBERED_MAX: Final = 2048
"""Windows whose publish times are remembered until a version holds them; beyond that the oldest are forgotten."""

METRIC_NAMES_MAX: Final = 32
"""Of more numbers than these no series are made; the task's metric and the loss are always among them."""
CANARY_REASONS: Final = frozenset({"late", "wrong_verdict", "unpublished"})


class MergerMetrics(MetricsObserver):
    """What a merger counts."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        super().__init__(metrics, task=task, home=home)
        self._adopted = False
        self._merging_since_s = 0.0
        self._published: dict[tuple[Slot, int], tuple[int, ...]] = {}
        self._stopped = ""
        self._refused = ""
        self._policy = ""
        self._last_scrape: LastScrape | None = None
        self._norms = Drift()
        metrics.counter("fluvial_drift_total").labels("update_norm")

    def adopted(self, version: int, regions: Collection[str]) -> None:
        """See ``Observer``."""
        self._adopted = True
        self._refused = ""
        self.metrics.gauge("fluvial_merger_refused_version").set(0)
        self.metrics.gauge("fluvial_version").set(version)
        for region in regions:
            self.metrics.gauge("fluvial_region_expected").labels(region).set(1)

    def window_taken(self, record: LogRecord, aggregate: Aggregate) -> None:
        """See ``Observer``."""
        last = self.metrics.gauge("fluvial_region_last_window_timestamp_seconds")
        last.labels(aggregate.region).set(record.timestamp_ms / 1000)
        times = unpack(record.headers, record.timestamp_ms)
        if times:
            self._published[aggregate.slot, aggregate.sequence] = times
            if len(self._published) > WINDOWS_REMEMBERED_MAX:
                del self._published[next(iter(self._published))]

    def waiting(self, windows: int, updates: int, updates_wanted: int) -> None:
        """See ``Observer``."""
        self.metrics.gauge("fluvial_merge_waiting_windows").set(windows)
        self.metrics.gauge("fluvial_merge_waiting_updates").set(updates)
        self.metrics.gauge("fluvial_merge_updates_wanted").set(updates_wanted)

    def merging(self, version: int, chosen: Collection[Aggregate]) -> None:
        """See ``Observer``."""
        del version, chosen
        self._merging_since_s = time.perf_counter()

    def committed(self, manifest: Manifest, chosen: Collection[Aggregate], stored_bytes: int) -> Headers:
        """See ``Observer``."""
        metrics = self.metrics
        metrics.histogram("fluvial_merge_seconds").observe(time.perf_counter() - self._merging_since_s)
        metrics.histogram("fluvial_version_updates").observe(manifest.accepted)
        metrics.counter("fluvial_version_commits_total").inc()
        metrics.counter("fluvial_version_stored_bytes_total").inc(stored_bytes)
        self._count_late(manifest)
        metrics.gauge("fluvial_version").set(manifest.version)
        if self._policy not in {"", manifest.policy_sha256}:
            metrics.counter("fluvial_policy_changes_total").inc()
        self._policy = manifest.policy_sha256
        show_drift(metrics, "update_norm", self._norms, usual_norm(chosen))
        self.succeeded("version")
        now_s = time.time()
        for aggregate in chosen:
            latency = metrics.histogram("fluvial_publish_to_version_seconds").labels(aggregate.region)
            for published_ms in self._published.pop((aggregate.slot, aggregate.sequence), ()):
                latency.observe(max(0.0, now_s - published_ms / 1000))
        return ()

    def _count_late(self, manifest: Manifest) -> None:
        late = self.metrics.histogram("fluvial_window_late_versions")
        dropped = self.metrics.counter("fluvial_updates_dropped_total")
        for one in manifest.inputs:
            versions = manifest.late_versions(one)
            if versions is None or not one.accepted:
                continue
            late.labels(one.region).observe(versions)
            dropped.labels(one.region).inc(one.accepted if one.is_dropped else 0)

    def guide_named(self, version: int, guide_version: int) -> None:
        """See ``Observer``."""
        self.metrics.gauge("fluvial_unguided").set(0)
        self.metrics.gauge("fluvial_guide_age_versions").set(version - guide_version)

    def unguided(self, version: int) -> None:
        """See ``Observer``."""
        del version
        self.metrics.gauge("fluvial_unguided").set(1)

    def guide_refused(self, reason: str) -> None:
        """See ``Observer``."""
        self.metrics.counter("fluvial_guides_refused_total").labels(reason).inc()

    def race_lost(self, version: int) -> None:
        """See ``Observer``."""
        self.metrics.counter("fluvial_version_races_lost_total").inc()
        self.metrics.gauge("fluvial_version").set(version)

    def version_refused(self, version: int, error: FluvialError) -> None:
        """See ``Observer``."""
        self._refused = f"version {version} in the store is refused: {error.error_id}"
        self.metrics.gauge("fluvial_merger_refused_version").set(version)

    def window_disproved(self, slot: Slot, lie: Aggregate, serial: str) -> None:
        """See ``Observer``."""
        del lie
        self.metrics.counter("fluvial_windows_disproved_total").labels(slot[0], serial or "unknown").inc()

    def lie_merged(self, slot: Slot, lie: Aggregate) -> None:
        """See ``Observer``."""
        del lie
        self.metrics.counter("fluvial_lies_merged_total").labels(slot[0]).inc()

    def merger_stopped(self, error: BaseException, last_scrape: LastScrape) -> None:
        """See ``Observer``."""
        self._stopped = error_id(error)
        self.metrics.gauge("fluvial_merger_stopped").labels(self._stopped).set(1)
        last_scrape.awaited = True
        self._last_scrape = last_scrape

    def ready_problem(self) -> str:
        """See ``MetricsObserver``."""
        if self._stopped:
            return f"the merger stopped: {self._stopped}"
        if self._refused:
            return self._refused
        return super().ready_problem() if self._adopted else "the newest version is not adopted yet"

    def refresh(self) -> None:
        """See ``MetricsObserver``."""
        super().refresh()
        if self._last_scrape is not None:
            self._last_scrape.shown = True  # this is a scrape, and it has it


class EvaluatorMetrics(MetricsObserver):
    """What an evaluator counts."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        super().__init__(metrics, task=task, home=home)
        self._adopted = False
        self._target: float | None = None
        self._reached = False
        self._series: set[tuple[str, str]] = set()
        self._shown: set[str] = set()
        self._without = 0
        self._drift = Drift()
        metrics.counter("fluvial_drift_total").labels("metric")
        self._judged_by: Metric | None = None

    def aim(self, target: float) -> None:
        """The value of the task's metric that a version should reach."""
        self._target = target
        self.metrics.gauge("fluvial_target_metric").set(target)

    def adopted(self, version: int, regions: Collection[str]) -> None:
        """See ``Observer``."""
        del version, regions
        self._adopted = True

    def recalled(self, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """See ``Observer``."""
        # Where they do not reach back to version 0, one before them may have been the first: then nobody can say.
        self._reached = bool(evaluations) and evaluations[0]["version"] != 0
        for record in evaluations:
            self._worsened(
                record
            )  # what was before this process is learned from, and nobody is told of it again
            self._show(record)

    def evaluated(self, record: Mapping[str, Any], seconds: float) -> None:
        """See ``Observer``."""
        problem = record.get("evaluation_problem")
        if isinstance(problem, str):
            self.metrics.counter("fluvial_evaluation_problems_total").labels(problem).inc()
        else:
            self.succeeded("evaluation")
            self.metrics.histogram("fluvial_evaluation_duration_seconds").observe(seconds)
        show_drift(self.metrics, "metric", self._drift, None, drifted=self._worsened(record))
        self._show(record)

    def _worsened(self, record: Mapping[str, Any]) -> bool:
        """Whether the task's metric drifts towards the worse; the test begins anew where another number judges it."""
        metric, values = metric_of(None, record), values_of(record)
        if metric is None or metric.name not in values:
            return False
        if metric != self._judged_by:
            self._judged_by, self._drift = metric, Drift()
        return self._drift.add(-values[metric.name] if metric.higher_is_better else values[metric.name])

    def _show(self, record: Mapping[str, Any]) -> None:
        version = int(record["version"])
        self.metrics.gauge("fluvial_evaluated_version").set(version)
        fields = {
            "loss": "fluvial_validation_loss",
            "accuracy": "fluvial_validation_accuracy",
            "accuracy_worst_decile": "fluvial_validation_worst_decile_accuracy",
        }
        failed = isinstance(record.get("evaluation_problem"), str)
        self._without = self._without + 1 if failed else 0
        self.metrics.gauge("fluvial_versions_without_evaluation").set(self._without)
        for field, name in fields.items():
            if is_finite(record.get(field)):
                self.metrics.gauge(name).set(record[field])
            elif failed and name in self._shown:
                self.metrics.gauge(name).set(math.nan)  # the version before's would be a lie
            self._shown |= {name} if is_finite(record.get(field)) else set()
        if is_finite(renamed := record.get("metrics_renamed")):
            self.metrics.counter("fluvial_evaluation_metrics_renamed_total").inc(renamed)
        self._show_metrics(record, version)

    def _show_metrics(self, record: Mapping[str, Any], version: int) -> None:
        metric, values = metric_of(None, record), values_of(record)
        assert metric is not None, "there is a record"
        gauge = self.metrics.gauge("fluvial_model_metric")
        shown = {(metric.name, way_of(metric)): values.get(metric.name, math.nan)} | {
            (name, ""): value
            for name, value in sorted(values.items(), key=lambda one: (one[0] != "loss", one[0]))
            if name != metric.name
        }
        for (name, way), value in list(shown.items())[:METRIC_NAMES_MAX]:
            gauge.labels(name, way).set(value)
        for name, way in self._series - shown.keys():
            gauge.labels(name, way).set(math.nan)
        self._series |= set(list(shown)[:METRIC_NAMES_MAX])
        worst = record.get(f"{metric.name}_worst_decile")
        if is_finite(worst):
            decile = self.metrics.gauge("fluvial_model_metric_worst_decile")
            decile.labels(metric.name, way_of(metric)).set(worst)
        if self._target is None or self._reached or metric.name not in values:
            return
        if reaches(metric, values[metric.name], self._target):
            self._reached = True
            self.metrics.gauge("fluvial_versions_to_target").set(version)

    def ready_problem(self) -> str:
        """See ``MetricsObserver``."""
        return super().ready_problem() if self._adopted else "announcements are not followed yet"


class GuardianMetrics(MetricsObserver):
    """What a guardian counts."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        super().__init__(metrics, task=task, home=home)
        self._adopted = False

    def adopted(self, version: int, regions: Collection[str]) -> None:
        """See ``Observer``."""
        del regions
        self._adopted = True
        if version >= 0:
            self.metrics.gauge("fluvial_guided_version").set(version)

    def guided(self, version: int, seconds: float) -> None:
        """See ``Observer``."""
        self.metrics.gauge("fluvial_guided_version").set(version)
        self.metrics.histogram("fluvial_guide_seconds").observe(seconds)
        self.succeeded("guide")

    def guide_failed(self, version: int, error: BaseException) -> None:
        """See ``Observer``."""
        del version
        self.metrics.counter("fluvial_guide_failures_total").labels(error_id(error)).inc()

    def ready_problem(self) -> str:
        """See ``MetricsObserver``."""
        return super().ready_problem() if self._adopted else "announcements are not followed yet"


class FleetMetrics(MetricsObserver):
    """What a fleet counts."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        super().__init__(metrics, task=task, home=home)
        self._answered = False

    def publishing(self, region: str, codec: str, value_bytes: int) -> Headers:
        """See ``Observer``."""
        name = codec if codec in CODECS else OTHER
        self.metrics.counter("fluvial_updates_published_total").labels(region, name).inc()
        self.metrics.counter("fluvial_updates_published_bytes_total").labels(region).inc(value_bytes)
        return ()

    def acknowledged(self, region: str, seconds: float) -> None:
        """See ``Observer``."""
        self._answered = True
        self.metrics.histogram("fluvial_publish_seconds").labels(region).observe(max(0.0, seconds))
        self.succeeded("publish")

    def unacknowledged(self, region: str, error: BaseException) -> None:
        """See ``Observer``."""
        self.metrics.counter("fluvial_publish_errors_total").labels(region, error_id(error)).inc()

    def round_failed(self, region: str, error_id: str, devices_failing: int) -> None:
        """See ``Observer``."""
        self.metrics.counter("fluvial_fleet_failed_rounds_total").labels(region, error_id).inc()
        self.metrics.gauge("fluvial_fleet_devices_failing").set(devices_failing)

    def round_succeeded(self, devices_failing: int) -> None:
        """See ``Observer``."""
        self.metrics.gauge("fluvial_fleet_devices_failing").set(devices_failing)

    def ready_problem(self) -> str:
        """See ``MetricsObserver``."""
        return super().ready_problem() if self._answered else "no update is acknowledged yet"


class CanaryMetrics(MetricsObserver):
    """What a canary counts."""

    def canary_published(self, region: str) -> None:
        """See ``Observer``."""
        self.metrics.counter("fluvial_canary_published_total").labels(region).inc()

    def canary_judged(self, region: str, seconds: float) -> None:
        """See ``Observer``."""
        self.metrics.histogram("fluvial_canary_verdict_seconds").labels(region).observe(max(0.0, seconds))
        self.succeeded("canary")

    def canary_failed(self, region: str, reason: str) -> None:
        """See ``Observer``."""
        label = reason if reason in CANARY_REASONS else OTHER
        self.metrics.counter("fluvial_canary_failures_total").labels(region, label).inc()


class AuditorMetrics(MetricsObserver):
    """What an auditor counts."""

    def audited(self, findings: int, versions: int, seconds: float) -> None:
        """See ``Observer``."""
        self.metrics.gauge("fluvial_audit_findings").set(findings)
        self.metrics.counter("fluvial_audit_mismatches_total").inc(findings)
        self.metrics.gauge("fluvial_audit_versions").set(versions)
        self.metrics.gauge("fluvial_audit_seconds").set(seconds)
        self.succeeded("audit")


BY_ROLE: Final[Mapping[str, type[MetricsObserver]]] = {
    "worker": WorkerMetrics,
    "merger": MergerMetrics,
    "evaluator": EvaluatorMetrics,
    "guardian": GuardianMetrics,
    "fleet": FleetMetrics,
    "canary": CanaryMetrics,
    "auditor": AuditorMetrics,
}
