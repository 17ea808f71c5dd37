"""The metric catalogue: every metric declared once, as data, and built into one registry a process.

Names, labels and roles are fixed here; alerts, dashboards and ``docs/metrics.md`` follow. Units are base units. No label
ever holds a device id, and every label's values come from a set that is closed or as small as the task's partitions,
so devices never add a series.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every one, which no question needs

Kind = Literal["counter", "gauge", "histogram"]

OBSERVATIONS_WAITING_MAX: Final = 512

WORKER: Final = ("worker",)
MERGER: Final = ("merger",)
EVALUATOR: Final = ("evaluator",)
GUARDIAN: Final = ("guardian",)
DRIFTING: Final = ("merger", "evaluator")
"""Who sees numbers of versions that may drift."""
FLEET: Final = ("fleet",)
AUDITOR: Final = ("auditor",)
CANARY: Final = ("canary",)
ROLES: Final = ("worker", "merger", "evaluator", "guardian", "fleet", "canary", "auditor")

REGION: Final = ("region",)
PLACE: Final = ("region", "partition")

QUICK_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
ANSWER_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
END_TO_END_S: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
EVALUATION_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
RECORD_BYTES: Final = tuple(float(1 << power) for power in range(10, 25, 2))
STALENESS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
DEVIATIONS: Final = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0)
UPDATES: Final = tuple(float(1 << power) for power in range(0, 17, 2))

ACTIONS: Final = (
    "verdict",
    "window",
    "version",
    "evaluation",
    "guide",
    "audit",
    "canary",
    "publish",
    "store",
    "kafka",
)
TOPIC_KINDS: Final = ("updates", "verdicts", "aggregates", "models", "guides", "metrics")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called, what it means, and the question that it answers."""

    name: str
    kind: Kind
    unit: str
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    meaning: str
    question: str
    buckets: tuple[float, ...] = ()


def _counter(  # noqa: PLR0917 (one row of a table)
    name: str, unit: str, roles: tuple[str, ...], labels: tuple[str, ...], meaning: str, question: str
) -> Metric:
    return Metric(name, "counter", unit, roles, labels, meaning, question)


def _gauge(  # noqa: PLR0917
    name: str, unit: str, roles: tuple[str, ...], labels: tuple[str, ...], meaning: str, question: str
) -> Metric:
    return Metric(name, "gauge", unit, roles, labels, meaning, question)


def _histogram(  # noqa: PLR0917
    name: str,
    unit: str,
    roles: tuple[str, ...],
    labels: tuple[str, ...],
    meaning: str,
    question: str,
    buckets: tuple[float, ...],
) -> Metric:
    return Metric(name, "histogram", unit, roles, labels, meaning, question, buckets)


# ruff: noqa: E501 (one metric is one row)
# fmt: off
EVERY_PROCESS: Final = (
    _gauge("fluvial_build_info", "1", ROLES, ("version", "python"), "Always 1; the labels say which code runs.", "Do all processes run the same release?"),
    _gauge("fluvial_ready", "0 or 1", ROLES, (), "1 when /readyz answers 200.", "Does this process do its work now?"),
    _gauge("fluvial_last_success_timestamp_seconds", "Unix seconds", ROLES, ("action",), "When an action last succeeded; absent before its first success.", "Since when has nothing of this kind succeeded?"),
    _gauge("fluvial_certificate_expires_timestamp_seconds", "Unix seconds", ("worker", "merger", "guardian", "canary"), (), "When this process' certificate ends.", "When must a certificate be renewed?"),
    _gauge("fluvial_disk_free_bytes", "bytes", ROLES, (), "Free bytes of the file system that holds the home folder.", "When will the disk be full?"),
    _gauge("fluvial_disk_size_bytes", "bytes", ROLES, (), "Size of the file system that holds the home folder.", "Which share of the disk is free?"),
    _histogram("fluvial_kafka_produce_seconds", "seconds", ROLES, ("topic",), "From handing a record to the producer until the broker's answer; the topic's kind, not its name.", "How fast does Kafka take records?", ANSWER_S),
    _counter("fluvial_kafka_errors_total", "records", ROLES, ("topic", "error_id"), "Records that the broker did not take.", "Does Kafka refuse us, and why?"),
    _histogram("fluvial_store_operation_seconds", "seconds", ROLES, ("operation",), "Duration of one operation of the object store.", "How fast is the object store?", ANSWER_S),
    _counter("fluvial_store_errors_total", "operations", ROLES, ("operation", "error_id"), "Operations of the object store that failed.", "Does the object store fail, and at what?"),
)

WORKERS: Final = (
    _counter("fluvial_verdicts_total", "records", WORKER, ("region", "outcome"), "Verdicts by outcome, the canaries' left out. A record that is folded again after a restart counts again, in the process that folds it.", "How many updates count, and why do others not?"),
    _counter("fluvial_canary_verdicts_total", "records", WORKER, ("region", "outcome"), "Verdicts on the canaries' updates.", "Are the canaries judged as they should be?"),
    _histogram("fluvial_verdict_seconds", "seconds", WORKER, REGION, "From a record's LogAppendTime until its verdict is handed to the producer.", "How long does a device wait for its verdict?", END_TO_END_S),
    _histogram("fluvial_update_bytes", "bytes", WORKER, ("region", "codec"), "Size of an authentic update's whole record.", "How large are updates, by codec?", RECORD_BYTES),
    _histogram("fluvial_update_staleness_versions", "versions", WORKER, REGION, "How many versions old an update's base was.", "How stale is what devices send?", STALENESS),
    _histogram("fluvial_update_norm_deviations", "deviations", WORKER, REGION, "How far an update's norm is from its partition's recent norms, in robust standard deviations.", "Does the distribution of updates drift, or is somebody attacking?", DEVIATIONS),
    _histogram("fluvial_fold_seconds", "seconds", WORKER, REGION, "Time to decode, authenticate and fold one record.", "What does a record cost?", QUICK_S),
    _counter("fluvial_records_folded_total", "records", WORKER, PLACE, "Records folded, whatever they were.", "Does every partition move?"),
    _gauge("fluvial_next_offset", "offset", WORKER, PLACE, "The offset that the fold takes next.", "Where does a partition stand?"),
    _gauge("fluvial_log_end_offset", "offset", WORKER, PLACE, "One past the newest offset of the partition, as sampled every few seconds.", "Where does the log end?"),
    _gauge("fluvial_lag_records", "records", WORKER, PLACE, "Records in the log that are not folded yet.", "How much work waits?"),
    _gauge("fluvial_lag_seconds", "seconds", WORKER, PLACE, "How old the oldest record is that is not folded; 0 only when there is none. It grows while a partition is stopped.", "How late is the fold?"),
    _gauge("fluvial_partition_version", "version", WORKER, PLACE, "The version that the newest Barrier brought.", "Has every partition got the newest version?"),
    _gauge("fluvial_window_fill_ratio", "ratio", WORKER, PLACE, "Accepted updates of the open window, of those that close it.", "How full is the open window?"),
    _gauge("fluvial_window_age_seconds", "seconds", WORKER, PLACE, "Age of the open window at scrape time; 0 when it is empty.", "Do windows close in time?"),
    _counter("fluvial_windows_total", "windows", WORKER, PLACE, "Windows closed.", "How often do windows close?"),
    _histogram("fluvial_window_publish_seconds", "seconds", WORKER, REGION, "From a window's end until its verdicts, objects and aggregate are where they belong.", "What does publishing a window cost?", ANSWER_S),
    _gauge("fluvial_snapshot_timestamp_seconds", "Unix seconds", WORKER, PLACE, "When this process last published a window, which is also a snapshot.", "How much would be folded again after a crash?"),
    _gauge("fluvial_partition_stopped", "0 or 1", WORKER, PLACE, "1 when the partition has stopped and waits for a person.", "Which partitions have stopped?"),
    _gauge("fluvial_unvouched_verdicts", "verdicts", WORKER, PLACE, "Verdicts that stood, when the partition was last taken, for offsets behind its log's end, and for which no worker vouches.", "Has a log lost its newest records, or does somebody plant verdicts?"),
    _counter("fluvial_partition_stops_total", "stops", WORKER, ("region", "error_id"), "Stops of partitions, by the error's id.", "Why do partitions stop?"),
    _counter("fluvial_windows_contradicted_total", "windows", WORKER, REGION, "Windows of this worker beside which another of the same sequence is signed.", "Does somebody lie with a worker's key?"),
    _gauge("fluvial_devices_active", "devices", WORKER, PLACE, "Different devices that contributed to any live base version.", "How many devices take part?"),
    _gauge("fluvial_devices_contributing", "devices", WORKER, PLACE, "Different devices that contributed to the version before the current one, or else to the newest that has any.", "Which share of the active devices contributes to a version?"),
)

MERGERS: Final = (
    _gauge("fluvial_version", "version", MERGER, (), "The newest version that this merger knows.", "Is there a new version?"),
    _counter("fluvial_version_commits_total", "versions", MERGER, (), "Versions that this merger committed.", "How often is there a new version?"),
    _counter("fluvial_policy_changes_total", "changes", MERGER, (), "Versions of this merger whose policy is another than the version's before.", "Did the policy change?"),
    _counter("fluvial_drift_total", "alarms", DRIFTING, ("signal",), "Times that a number of the versions began to rise: the usual norm of updates (update_norm), or the task's metric in the worse direction (metric).", "Did the devices' data change?"),
    _gauge("fluvial_drift_statistic", "1", DRIFTING, ("signal",), "How near a number of the versions is to such an alarm, which is at 1.", "Does something begin to drift?"),
    _counter("fluvial_version_races_lost_total", "versions", MERGER, (), "Versions that another merger committed first.", "Do two mergers run?"),
    _histogram("fluvial_publish_to_version_seconds", "seconds", MERGER, REGION, "From an accepted update's LogAppendTime until the version that holds it is committed; of windows over 1,024 updates an even sample.", "How long until an update is in the model?", END_TO_END_S),
    _histogram("fluvial_merge_seconds", "seconds", MERGER, (), "From choosing windows until their version is committed and stored.", "What does a merge cost?", ANSWER_S),
    _gauge("fluvial_merge_waiting_windows", "windows", MERGER, (), "Windows that wait to be merged.", "Does work pile up before the merger?"),
    _gauge("fluvial_merge_waiting_updates", "updates", MERGER, (), "Accepted updates in the windows that wait.", "How near is the next version?"),
    _gauge("fluvial_merge_updates_wanted", "updates", MERGER, (), "Updates that the policy wants before it waits no longer.", "How near is the next version?"),
    _histogram("fluvial_version_updates", "updates", MERGER, (), "Accepted updates in a version.", "How many updates make a version?", UPDATES),
    _histogram("fluvial_window_late_versions", "versions", MERGER, REGION, "How many versions after the one that it was folded under a window with updates was merged, beyond the next; where the task's policy counts it.", "Does a region's work come in time?", STALENESS),
    _counter("fluvial_updates_dropped_total", "updates", MERGER, REGION, "Accepted updates of windows that came too late for any version, and were dropped.", "Is work lost, and whose?"),
    _counter("fluvial_version_stored_bytes_total", "bytes", MERGER, (), "Bytes stored for versions.", "What do versions cost in storage?"),
    _gauge("fluvial_region_expected", "1", MERGER, REGION, "1 for every region of the genesis document.", "Which regions should there be?"),
    _gauge("fluvial_region_last_window_timestamp_seconds", "Unix seconds", MERGER, REGION, "LogAppendTime of the region's newest window.", "Which region is silent?"),
    _gauge("fluvial_merger_stopped", "0 or 1", MERGER, ("error_id",), "1 once this merger stops for a reason that no retry removes, by the error's id; absent before. Where two windows contradict each other it stays until it was scraped once, a minute at most; else it ends at once.", "Has a merger stopped, and why?"),
    _gauge("fluvial_merger_refused_version", "version", MERGER, (), "The version in the store that this merger neither signs nor builds upon, since it is not what its windows give; 0 while there is none.", "Did somebody plant a version?"),
    _counter("fluvial_windows_disproved_total", "windows", MERGER, ("region", "certificate"), "Windows that are not what their log gives, by the serial of the certificate that signed them: it is barred in this merger.", "Does somebody lie with a worker's key?"),
    _counter("fluvial_lies_merged_total", "windows", MERGER, REGION, "Windows in versions that are not what their log gives, found out after the version was made.", "Which versions hold a lie?"),
    _gauge("fluvial_unguided", "0 or 1", MERGER, (), "1 while the newest version names no guide, or the next one waits for one; absent where the policy is not guided.", "Are updates judged without a guide?"),
    _gauge("fluvial_guide_age_versions", "versions", MERGER, (), "How many versions older than the newest version its guide is; absent until one is named.", "Does the guardian keep up?"),
    _counter("fluvial_guides_refused_total", "records", MERGER, ("reason",), "Records of the guides topic that this merger does not take: forged, of another base (wrong_base), or whose object is missing, too_large, damaged or no guide (no_guide).", "Does somebody plant guides?"),
    _gauge("fluvial_privacy_epsilon", "epsilon", MERGER, (), "The privacy budget that was spent. Reserved: absent until a policy has a budget.", "How much of the privacy budget is spent?"),
)

EVALUATORS: Final = (
    _gauge("fluvial_evaluated_version", "version", EVALUATOR, (), "The newest version that was evaluated.", "Does the evaluation keep up?"),
    _gauge("fluvial_versions_without_evaluation", "versions", EVALUATOR, (), "How many of the newest versions in a row were published without an evaluation; 0 where the newest has one.", "Does the evaluator fail now?"),
    _counter("fluvial_evaluation_problems_total", "versions", EVALUATOR, ("problem",), "Versions that were published without an evaluation: not_finite, failed, crashed, late or unreadable.", "Why have versions no evaluation?"),
    _gauge("fluvial_validation_loss", "loss", EVALUATOR, (), "Loss of that version on held-out data; NaN where it has no evaluation.", "Does the model get better?"),
    _gauge("fluvial_model_metric", "its own", EVALUATOR, ("name", "better"), "Every number that the task's evaluate() gives of that version, by its name, 32 at most. The one that judges the task says which is better, higher or lower; of the others the label is empty. NaN where this version has none.", "How good is the model?"),
    _gauge("fluvial_model_metric_worst_decile", "its own", EVALUATOR, ("name", "better"), "Mean of the task's metric over the tenth of the cohorts that the version serves worst; absent where the evaluation does not say.", "Whom does the model serve badly?"),
    _gauge("fluvial_validation_accuracy", "ratio", EVALUATOR, (), "Accuracy of that version on held-out data, where the task reports one; NaN where the version has no evaluation.", "How good is a classifier?"),
    _gauge("fluvial_validation_worst_decile_accuracy", "ratio", EVALUATOR, (), "Mean accuracy of the tenth of the cohorts that it serves worst, where a classifier is judged by it.", "Whom does a classifier serve badly?"),
    _counter("fluvial_evaluation_metrics_renamed_total", "numbers", EVALUATOR, (), "Numbers of evaluate() that were published under another name, because a record cannot have their own (FLV-2243).", "Does a task file use names that are reserved?"),
    _histogram("fluvial_evaluation_duration_seconds", "seconds", EVALUATOR, (), "Time to load one version and evaluate it on the held-out data and each of its parts.", "What does an evaluation cost, and does it keep up with new versions?", EVALUATION_S),
    _gauge("fluvial_target_metric", "the metric's", EVALUATOR, (), "The value of the task's metric asked for with --target; absent without.", "What is the aim?"),
    _gauge("fluvial_versions_to_target", "versions", EVALUATOR, (), "The first version whose metric was as good as the target, or better; absent until one does, and where an evaluator that started again finds no evaluation of version 0 in what it reads of the metrics topic: then an earlier one may have been the first.", "How fast does the model converge?"),
)

GUARDIANS: Final = (
    _gauge("fluvial_guided_version", "version", GUARDIAN, (), "The newest version of which this guardian made a guide.", "Does the guardian keep up?"),
    _histogram("fluvial_guide_seconds", "seconds", GUARDIAN, (), "Time to load one version, train on the root set, and publish the guide.", "What does a guide cost, and does it keep up with new versions?", EVALUATION_S),
    _counter("fluvial_guide_failures_total", "versions", GUARDIAN, ("error_id",), "Versions of which no guide could be made, by the error's id: train() raised or gave NaN, or the guide pointed nowhere (other).", "Does training on the root set fail, and why?"),
)

OTHERS: Final = (
    _counter("fluvial_updates_published_total", "records", FLEET, ("region", "codec"), "Updates handed to the producer.", "What do devices send?"),
    _counter("fluvial_updates_published_bytes_total", "bytes", FLEET, REGION, "Bytes of those updates.", "What traffic do devices make?"),
    _counter("fluvial_publish_errors_total", "records", FLEET, ("region", "error_id"), "Updates that were not acknowledged.", "Why do updates not get through?"),
    _histogram("fluvial_publish_seconds", "seconds", FLEET, REGION, "From handing an update to the producer until the broker acknowledged it.", "How long does publishing take?", ANSWER_S),
    _counter("fluvial_fleet_failed_rounds_total", "rounds", FLEET, ("region", "error_id"), "Rounds of devices that failed before anything was published, by the error's id: train() raised, gave NaN or changed the layout. The others go on.", "Do devices fail to train, and why?"),
    _gauge("fluvial_fleet_devices_failing", "devices", FLEET, (), "Devices of the fleet whose last round failed.", "How many devices cannot train now?"),
    _gauge("fluvial_audit_findings", "findings", AUDITOR, (), "Findings of the last audit.", "Does the model follow from the log?"),
    _counter("fluvial_audit_mismatches_total", "findings", AUDITOR, (), "Findings of all audits of this process.", "Has an audit ever found a difference?"),
    _gauge("fluvial_audit_versions", "versions", AUDITOR, (), "Versions that the last audit checked.", "How far did the audit get?"),
    _gauge("fluvial_audit_seconds", "seconds", AUDITOR, (), "Duration of the last audit.", "What does an audit cost?"),
    _counter("fluvial_canary_published_total", "records", CANARY, REGION, "Canary updates that the broker acknowledged.", "Does the canary sing?"),
    _histogram("fluvial_canary_verdict_seconds", "seconds", CANARY, REGION, "From publishing a canary update until its verdict is read.", "Does a known update get its verdict in time?", END_TO_END_S),
    _counter("fluvial_canary_failures_total", "failures", CANARY, ("region", "reason"), "Canary updates that went wrong: late, wrong_verdict or unpublished.", "Which part of the path is broken?"),
)
# fmt: on

CATALOGUE: Final = EVERY_PROCESS + WORKERS + MERGERS + EVALUATORS + GUARDIANS + OTHERS

ABSENT_UNTIL_SET: Final = frozenset(
    {
        "fluvial_certificate_expires_timestamp_seconds",
        "fluvial_privacy_epsilon",
        "fluvial_unguided",
        "fluvial_guide_age_versions",
        "fluvial_guided_version",
        "fluvial_evaluated_version",
        "fluvial_validation_loss",
        "fluvial_validation_accuracy",
        "fluvial_validation_worst_decile_accuracy",
        "fluvial_target_metric",
        "fluvial_versions_to_target",
        "fluvial_version",
        "fluvial_audit_findings",
        "fluvial_audit_versions",
        "fluvial_audit_seconds",
    }
)
"""Gauges whose 0 would be a lie before the first value: they are registered when they get one."""


class BufferedHistogram(Histogram):
    """A histogram that sorts its observations into buckets many at a time, at the latest when it is collected.

    One at a time they were half of what all metrics cost a worker.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._waiting: list[float] = []
        self._draining = threading.Lock()

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count an observation; exemplars are not kept."""
        del exemplar
        self._waiting.append(amount)
        if len(self._waiting) >= OBSERVATIONS_WAITING_MAX:
            self._drain()

    def observe_together(self, amount: float, count: int) -> None:
        """Count ``count`` observations of one amount."""
        self._waiting += [amount] * count
        if len(self._waiting) >= OBSERVATIONS_WAITING_MAX:
            self._drain()

    def _drain(self) -> None:
        with self._draining:
            values = self._waiting[:]  # others may append meanwhile: behind these
            del self._waiting[: len(values)]
            places = np.searchsorted(self._upper_bounds, values)
            for bucket, count in zip(self._buckets, np.bincount(places), strict=False):  # NaN is in no bucket
                if count:
                    bucket.inc(int(count))
            self._sum.inc(sum(values))

    def _child_samples(self) -> Iterable[Sample]:
        self._drain()
        return super()._child_samples()


class Metrics:
    """The metrics of one process of a role, in a registry of its own."""

    def __init__(self, role: str) -> None:
        self.registry = CollectorRegistry()
        self.refresh: Callable[[], None] = _nothing
        self.registry.register(_Refreshing(self))  # the first: what it fills is collected after it
        self._declared = {metric.name: metric for metric in CATALOGUE if role in metric.roles}
        self._built = {
            name: self._build(metric)
            for name, metric in self._declared.items()
            if name not in ABSENT_UNTIL_SET
        }
        self.gauge("fluvial_build_info").labels(release(), platform.python_version()).set(1)

    def register_standard(self) -> None:
        """The usual process_*, python_gc_* and python_info metrics."""
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def counter(self, name: str) -> Counter:
        """A counter of this role, by its name."""
        found: Counter = self._find(name)
        return found

    def gauge(self, name: str) -> Gauge:
        """A gauge of this role, by its name; one that was absent is there from now on."""
        found: Gauge = self._find(name)
        return found

    def histogram(self, name: str) -> BufferedHistogram:
        """A histogram of this role, by its name."""
        found: BufferedHistogram = self._find(name)
        return found

    def has(self, name: str) -> bool:
        """Whether this role exports it."""
        return name in self._declared

    def _find(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._build(self._declared[name])
        return self._built[name]

    def _build(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "counter":
            return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)
        return BufferedHistogram(
            metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
        )


def _nothing() -> None:
    """Nothing to fill."""


class _Refreshing(Collector):
    """Has no metrics of its own: collected first, it has the gauges filled that are known at scrape time only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Collection[Any]:
        """No metrics: registering it must not collect."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Fill the gauges; nothing of its own."""
        self._metrics.refresh()
        return iter(())


def release() -> str:
    """The installed release of Fluvial."""
    try:
        return version("fluvial")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
