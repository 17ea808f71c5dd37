"""The metrics of every role: what hooks count, that devices add no series, and headers that nobody signed."""

from __future__ import annotations

import itertools
import math
import struct
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from aggregation.errors import ConnectionProblem, IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.events import RejectedRecord, Verdict
from aggregation.fold.rejections import RejectionReason
from aggregation.reasons import NOTHING
from backends.log import LogRecord
from backends.observer import LastScrape
from backends.observing.lag import LagTable
from backends.observing.metrics import CATALOGUE, ROLES, Metrics
from backends.observing.roles import (
    BY_ROLE,
    METRIC_NAMES_MAX,
    AuditorMetrics,
    CanaryMetrics,
    EvaluatorMetrics,
    FleetMetrics,
    MergerMetrics,
)
from backends.observing.times_header import AGE_MS_MAX, NAME, TIMES_MAX, PublishTimes, pack, unpack
from backends.observing.worker import WorkerMetrics
from fluvial.documents.metrics_page import FIELD, PAGE, SECTIONS, page
from tests import factories
from tests.unit.schemas.test_manifests import manifest as older_manifest
from tests.unit.schemas.test_manifests import manifest_v3

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.fold.state import PartitionState
    from backends.observing.process import MetricsObserver

SLOT = ("eu", 0)


def made(role: str, home: Path) -> Any:
    return BY_ROLE[role](Metrics(role), task="t", home=home)


def value(observer: MetricsObserver, name: str, **labels: str) -> float | None:
    observer.refresh()
    return observer.metrics.registry.get_sample_value(name, labels)


def state() -> PartitionState:
    return partition_state.initial(
        task="t",
        region="eu",
        partition=0,
        partitions=1,
        layout=factories.LAYOUT,
        policy=factories.policy(window={"updates_max": 4}),
        model_sha256="0" * 64,
    )


def record(offset: int = 0, timestamp_ms: int | None = None) -> LogRecord:
    now_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
    return LogRecord("fl.t.updates.eu", 0, offset, now_ms, None, b"x")


def judge(worker: WorkerMetrics, offset: int, device: str, outcome: str = "accepted") -> None:
    event = RejectedRecord(RejectionReason.UNDECODABLE, NOTHING)
    worker.folding(SLOT, record(offset))
    worker.judged(SLOT, record(offset), event, Verdict(offset, outcome, device_id=device))
    worker.folded(SLOT, record(offset), state())


def test_names_are_unique_and_every_row_says_what_it_answers() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    for metric in CATALOGUE:
        assert metric.name.startswith("fluvial_") and metric.question.endswith("?") and metric.meaning, metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert not {"device", "device_id"} & set(metric.labels)


@pytest.mark.parametrize("role", ROLES)
def test_a_process_exports_only_its_roles_metrics(role: str, tmp_path: Path) -> None:
    observer = made(role, tmp_path)
    names = {family.name for family in observer.metrics.registry.collect()}
    own = {metric.name.removesuffix("_total") for metric in CATALOGUE if role in metric.roles}
    assert {"fluvial_build_info", "fluvial_disk_free_bytes"} <= names <= own


def test_ten_thousand_devices_add_no_series(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    worker.resumed(SLOT, state())
    judge(worker, 0, "d-0")
    judge(worker, 1, "canary-eu", "future_base")

    def series() -> set[str]:
        lines = generate_latest(worker.metrics.registry).decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    before = series()
    for number in range(10_000):
        judge(worker, number + 2, f"d-{number}")
    assert series() == before
    assert not any("d-" in line or "canary-eu" in line for line in before)
    assert value(worker, "fluvial_verdicts_total", region="eu", outcome="accepted") == 10_001


def test_canaries_are_counted_apart(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    judge(worker, 0, "canary-eu", "future_base")
    assert value(worker, "fluvial_canary_verdicts_total", region="eu", outcome="future_base") == 1
    assert value(worker, "fluvial_verdicts_total", region="eu", outcome="future_base") is None
    assert value(worker, "fluvial_verdict_seconds_count", region="eu") == 0


def test_an_outcome_that_is_not_known_is_other(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    judge(worker, 0, "d-1", "made_up")
    assert value(worker, "fluvial_verdicts_total", region="eu", outcome="other") == 1


def test_gauges_of_a_partition_that_moved_away_go_with_it(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    for partition in (0, 1):
        worker.resumed(("eu", partition), state())
        worker.sampled(("eu", partition), 5, time.time())
    worker.assigned("eu", [0, 1])
    assert value(worker, "fluvial_lag_records", region="eu", partition="1") == 5
    worker.assigned("eu", [0])
    assert value(worker, "fluvial_lag_records", region="eu", partition="1") is None
    assert value(worker, "fluvial_partition_stopped", region="eu", partition="1") is None
    assert value(worker, "fluvial_lag_records", region="eu", partition="0") == 5


def test_a_worker_is_ready_once_it_has_its_partitions_and_none_is_stopped(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    assert "assigned" in worker.ready_problem() and value(worker, "fluvial_ready") == 0
    worker.resumed(SLOT, state())
    worker.assigned("eu", [0])
    assert not worker.ready_problem() and value(worker, "fluvial_ready") == 1
    worker.stopped(SLOT, IntegrityProblem("FLV-3202", "a defect"))
    assert worker.ready_problem() == "partition eu[0] stopped: FLV-3202"
    assert value(worker, "fluvial_partition_stopped", region="eu", partition="0") == 1
    assert value(worker, "fluvial_partition_stops_total", region="eu", error_id="FLV-3202") == 1
    worker.resumed(SLOT, state())
    assert not worker.ready_problem()
    worker.ending()
    assert "ending" in worker.ready_problem() and not worker.live_problem()


def test_a_record_that_waits_for_the_store_is_alive_and_a_loop_that_stands_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    began_s, waited_s = time.monotonic(), 0.0
    monkeypatch.setattr("backends.observing.process.time.monotonic", lambda: began_s + waited_s)
    worker.folding(SLOT, record())
    for _ in range(20):
        waited_s += 20
        worker.beat()
        assert not worker.live_problem()
    waited_s += 31
    assert "not turned" in worker.live_problem()


def test_publish_times_go_from_the_worker_to_the_merger_in_a_header(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    merger = MergerMetrics(Metrics("merger"), task="t", home=tmp_path)
    worker.resumed(SLOT, state())
    for offset in range(3):
        judge(worker, offset, f"d-{offset}")
    closed: Any = SimpleNamespace(sequence=4)
    headers = worker.window_closed(SLOT, closed, state())
    assert [name for name, _ in headers] == [NAME]
    assert worker.window_closed(SLOT, closed, state()) == ()
    now_ms = time.time_ns() // 1_000_000
    aggregate: Any = SimpleNamespace(slot=SLOT, region="eu", sequence=4)
    merger.window_taken(LogRecord("a", 0, 0, now_ms, None, b"", headers), aggregate)
    manifest: Any = SimpleNamespace(accepted=3, version=1, policy_sha256="a" * 64, inputs=())
    merger.committed(manifest, [aggregate], 100)
    merger.committed(manifest, [aggregate], 100)  # what a window says is counted once
    assert value(merger, "fluvial_publish_to_version_seconds_count", region="eu") == 3
    assert value(merger, "fluvial_version_stored_bytes_total") == 200


def test_a_merger_that_stops_says_why_until_a_scrape_has_seen_it(tmp_path: Path) -> None:
    merger = MergerMetrics(Metrics("merger"), task="t", home=tmp_path)
    merger.adopted(3, ["eu"])
    last_scrape = LastScrape()
    assert value(merger, "fluvial_merger_stopped", error_id="FLV-3002") is None
    assert [last_scrape.awaited, last_scrape.shown] == [False, False]
    merger.merger_stopped(IntegrityProblem("FLV-3002", "divergence"), last_scrape)
    assert [last_scrape.awaited, last_scrape.shown] == [True, False]
    assert merger.ready_problem() == "the merger stopped: FLV-3002" and not merger.live_problem()
    assert (
        'fluvial_merger_stopped{error_id="FLV-3002"} 1.0' in generate_latest(merger.metrics.registry).decode()
    )
    assert last_scrape.shown


def test_times_beyond_what_a_header_holds_are_thinned_evenly() -> None:
    times = PublishTimes()
    for number in range(100_000):
        times.add(number)
    ((_, packed),) = times.headers()
    found = struct.unpack(f"<{len(packed) // 8}q", packed)
    assert TIMES_MAX / 2 < len(found) <= TIMES_MAX
    steps = {after - before for before, after in itertools.pairwise(found)}
    assert max(steps) <= 2 * min(steps) and found[-1] > 99_000
    times.clear()
    assert times.headers() == ()


@pytest.mark.parametrize("bad", [b"", b"1234567", b"\0" * 8 * (TIMES_MAX + 1), b"x" * 9])
def test_a_malformed_header_is_none(bad: bytes) -> None:
    assert unpack(((NAME, bad),), 5) == ()


def test_times_that_cannot_be_are_clipped_and_other_headers_passed_over() -> None:
    now_ms = 1_800_000_000_000
    headers = (("traceparent", b"x"), *pack([-(2**63), now_ms - 5, now_ms, 2**63 - 1]))
    assert unpack(headers, now_ms) == (now_ms - AGE_MS_MAX, now_ms - 5, now_ms, now_ms)
    assert unpack((), now_ms) == () and pack([]) == ()


def test_lag_is_zero_only_without_records_and_is_looked_up_between_samples() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    assert table.lag(100, 1003.0) == (0, 0.0)
    table.add(200, 1010.0)
    assert table.lag(150, 1010.0) == (50, 5.0)
    assert table.lag(199, 1010.0)[0] == 1 and table.lag(199, 1010.0)[1] > 0
    assert table.lag(250, 1011.0) == (0, 0.0)


def test_lag_of_a_partition_that_stands_grows_even_when_the_log_does_not() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    seen = []
    for second in range(1, 2000):
        table.add(101, 1000.0 + second)
        seen.append(table.lag(100, 1000.0 + second)[1])
    assert seen == sorted(seen) and seen[-1] > 1990


def test_lag_from_before_the_first_sample_is_at_least_that_of_the_last_record_folded() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    assert table.lag(40, 1001.0) == (60, 1.0)
    assert table.lag(40, 1001.0, 401.0) == (60, 600.0)


def test_a_log_that_became_shorter_is_another_one() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    table.add(10, 1001.0)
    assert table.lag(5, 1002.0) == (5, 1.0)


def test_an_evaluator_tells_the_first_version_that_reached_the_target(tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    assert value(evaluator, "fluvial_target_metric") is None
    evaluator.aim(0.9)
    evaluator.adopted(0, ["eu"])
    for version, accuracy in enumerate([0.5, 0.8, 0.91, 0.7, 0.95]):
        assert value(evaluator, "fluvial_versions_to_target") in (None, 2)
        evaluator.evaluated({"version": version, "accuracy": accuracy, "loss": 1.0}, 0.2)
    assert value(evaluator, "fluvial_versions_to_target") == 2
    assert value(evaluator, "fluvial_evaluated_version") == 4
    assert value(evaluator, "fluvial_validation_accuracy") == 0.95
    assert value(evaluator, "fluvial_validation_worst_decile_accuracy") is None
    evaluator.evaluated({"version": 5, "accuracy": 0.9, "accuracy_worst_decile": 0.6}, 0.2)
    assert value(evaluator, "fluvial_validation_worst_decile_accuracy") == 0.6
    assert not evaluator.ready_problem()


def evaluation(version: int, accuracy: float) -> dict[str, float]:
    return {"version": version, "accuracy": accuracy, "loss": 1.0 - accuracy}


def test_an_evaluator_that_starts_again_shows_what_the_one_before_it_showed(tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    evaluator.aim(0.9)
    evaluator.recalled([evaluation(0, 0.1), evaluation(1, 0.91), evaluation(2, 0.95), evaluation(3, 0.8)])
    assert value(evaluator, "fluvial_evaluated_version") == 3
    assert value(evaluator, "fluvial_validation_accuracy") == 0.8
    assert value(evaluator, "fluvial_versions_to_target") == 1
    assert value(evaluator, "fluvial_last_success_timestamp_seconds", action="evaluation") is None
    assert value(evaluator, "fluvial_evaluation_duration_seconds_count") == 0
    evaluator.evaluated(evaluation(4, 0.99), 1.5)
    assert value(evaluator, "fluvial_versions_to_target") == 1
    assert value(evaluator, "fluvial_evaluation_duration_seconds_sum") == 1.5


def test_which_version_was_the_first_is_not_guessed_where_the_first_evaluations_are_gone(
    tmp_path: Path,
) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    evaluator.aim(0.9)
    evaluator.recalled([evaluation(7, 0.8), evaluation(8, 0.95)])
    evaluator.evaluated(evaluation(9, 0.99), 0.1)
    assert value(evaluator, "fluvial_validation_accuracy") == 0.99
    assert value(evaluator, "fluvial_versions_to_target") is None


def test_an_evaluator_with_nothing_to_recall_counts_from_the_first_model(tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    evaluator.aim(0.9)
    evaluator.recalled([])
    evaluator.evaluated(evaluation(0, 0.95), 0.1)
    assert value(evaluator, "fluvial_versions_to_target") == 0


def shown(evaluator: EvaluatorMetrics, name: str, better: str = "") -> float | None:
    labels = {"name": name, "better": better}
    return evaluator.metrics.registry.get_sample_value("fluvial_model_metric", labels)


def test_every_number_of_a_task_has_a_series_and_its_metric_says_which_way_is_better(tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    named = {"metric": "rmse", "better": "lower"}
    evaluator.recalled([{"version": 0, "loss": 4.0, "rmse": 2.0, "r2": -3.0, **named}])
    assert (shown(evaluator, "rmse", "lower"), shown(evaluator, "r2"), shown(evaluator, "loss")) == (
        2.0,
        -3.0,
        4.0,
    )
    assert value(evaluator, "fluvial_validation_accuracy") is None
    later = {
        "version": 1,
        "loss": 1.0,
        "rmse": 1.0,
        "metrics_renamed": 2,
        "seconds": 3.0,
        "rmse_worst_decile": 1.5,
    }
    evaluator.evaluated(later | named, 0.1)
    assert shown(evaluator, "rmse", "lower") == 1.0 and math.isnan(shown(evaluator, "r2") or 0.0)
    assert shown(evaluator, "seconds") is None
    assert value(evaluator, "fluvial_evaluation_metrics_renamed_total") == 2
    worst = {"name": "rmse", "better": "lower"}
    assert evaluator.metrics.registry.get_sample_value("fluvial_model_metric_worst_decile", worst) == 1.5


def test_a_metric_that_is_not_there_any_more_is_nan_and_numbers_are_bounded(tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    named = {"metric": "zz", "better": "lower"}
    evaluator.evaluated(
        {"version": 0, "loss": 1.0, "zz": 2.0, **{f"a{n}": 1.0 for n in range(99)}} | named, 0.1
    )
    assert (shown(evaluator, "zz", "lower"), shown(evaluator, "loss"), shown(evaluator, "a0")) == (
        2.0,
        1.0,
        1.0,
    )
    assert (
        generate_latest(evaluator.metrics.registry).decode().count("fluvial_model_metric{")
        == METRIC_NAMES_MAX
    )
    evaluator.evaluated({"version": 1, "loss": 1.0} | named, 0.1)
    assert math.isnan(shown(evaluator, "zz", "lower") or 0.0)


@pytest.mark.parametrize(("better", "first"), [("lower", 2), ("higher", 0)])
def test_a_target_is_reached_from_the_side_that_is_better(better: str, first: int, tmp_path: Path) -> None:
    evaluator = EvaluatorMetrics(Metrics("evaluator"), task="t", home=tmp_path)
    evaluator.aim(0.5)
    evaluator.recalled([])
    for version, mae in enumerate([0.9, 0.6, 0.5, 0.1]):
        evaluator.evaluated(
            {"version": version, "loss": 0.0, "mae": mae, "metric": "mae", "better": better}, 0.1
        )
    assert value(evaluator, "fluvial_target_metric") == 0.5
    assert value(evaluator, "fluvial_versions_to_target") == first


def test_a_fleet_a_canary_and_an_auditor_count_what_they_do(tmp_path: Path) -> None:
    fleet = FleetMetrics(Metrics("fleet"), task="t", home=tmp_path)
    assert fleet.ready_problem()
    fleet.publishing("eu", "int8", 50)
    fleet.acknowledged("eu", 0.1)
    fleet.unacknowledged("eu", ConnectionProblem("FLV-3100", "away"))
    fleet.unacknowledged("eu", ValueError("?"))
    assert not fleet.ready_problem()
    assert value(fleet, "fluvial_updates_published_bytes_total", region="eu") == 50
    assert value(fleet, "fluvial_publish_errors_total", region="eu", error_id="FLV-3100") == 1
    assert value(fleet, "fluvial_publish_errors_total", region="eu", error_id="other") == 1
    canary = CanaryMetrics(Metrics("canary"), task="t", home=tmp_path)
    canary.canary_published("eu")
    canary.canary_judged("eu", 0.2)
    canary.canary_failed("eu", "late")
    assert value(canary, "fluvial_canary_failures_total", region="eu", reason="late") == 1
    auditor = AuditorMetrics(Metrics("auditor"), task="t", home=tmp_path)
    auditor.audited(2, 30, 1.5)
    auditor.audited(0, 31, 1.5)
    assert value(auditor, "fluvial_audit_findings") == 0
    assert value(auditor, "fluvial_audit_mismatches_total") == 2


def test_topics_are_known_by_their_kind_and_failures_by_their_id(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="a.b", home=tmp_path)
    worker.produced("fl.a.b.verdicts.eu", 0.1, None)
    worker.produced("elsewhere", 0.1, ConnectionProblem("FLV-3100", "away"))
    worker.stored("get", 0.1, ConnectionProblem("FLV-4002", "away"))
    assert value(worker, "fluvial_kafka_produce_seconds_count", topic="verdicts") == 1
    assert value(worker, "fluvial_kafka_errors_total", topic="other", error_id="FLV-3100") == 1
    assert value(worker, "fluvial_store_errors_total", operation="get", error_id="FLV-4002") == 1
    assert value(worker, "fluvial_last_success_timestamp_seconds", action="store") is None
    assert value(worker, "fluvial_last_success_timestamp_seconds", action="kafka")


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m fluvial.documents.metrics_page"
    names = {metric.name for metric in CATALOGUE}
    assert names == {metric.name for _, metrics in SECTIONS for metric in metrics}
    asked = {name for _, _, answers in FIELD for name in answers}
    assert {name for name in asked if not name.startswith("process_")} <= names


def test_a_version_without_an_evaluation_shows_no_number_of_the_version_before(tmp_path: Path) -> None:
    evaluator: Any = made("evaluator", tmp_path)
    well = {"version": 1, "loss": 0.5, "accuracy": 0.9, "metric": "accuracy", "better": "higher"}
    failed = {"loss": None, "metric": "accuracy", "better": "higher", "evaluation_problem": "late"}
    evaluator.evaluated(well, 0.1)
    assert value(evaluator, "fluvial_versions_without_evaluation") == 0
    for version in (2, 3):
        evaluator.evaluated(failed | {"version": version}, 0.0)
    assert value(evaluator, "fluvial_evaluated_version") == 3
    assert value(evaluator, "fluvial_versions_without_evaluation") == 2
    assert value(evaluator, "fluvial_evaluation_problems_total", problem="late") == 2
    shown_now = [
        value(evaluator, "fluvial_validation_loss"),
        value(evaluator, "fluvial_validation_accuracy"),
        shown(evaluator, "accuracy", "higher"),
    ]
    assert all(one is not None and math.isnan(one) for one in shown_now)
    evaluator.evaluated(well | {"version": 4}, 0.1)
    assert value(evaluator, "fluvial_versions_without_evaluation") == 0
    assert value(evaluator, "fluvial_validation_accuracy") == 0.9


def test_a_change_of_policy_is_counted_and_a_mergers_start_is_none(tmp_path: Path) -> None:
    merger: Any = made("merger", tmp_path)
    for version, policy in enumerate("aabba", start=1):
        manifest: Any = SimpleNamespace(accepted=1, version=version, policy_sha256=policy * 64, inputs=())
        merger.committed(manifest, [], 1)
    assert value(merger, "fluvial_policy_changes_total") == 2


def test_a_merger_counts_how_late_windows_were_and_what_was_dropped(tmp_path: Path) -> None:
    merger: Any = made("merger", tmp_path)
    merger.committed(manifest_v3(), [], 1)
    merger.committed(older_manifest(), [], 1)  # it does not say
    assert value(merger, "fluvial_window_late_versions_count", region="eu") == 3
    assert value(merger, "fluvial_window_late_versions_sum", region="eu") == 5 * 3
    assert value(merger, "fluvial_updates_dropped_total", region="eu") == 4


def test_failed_rounds_are_counted_by_cause_and_devices_that_fail_now_are_shown(tmp_path: Path) -> None:
    fleet: Any = made("fleet", tmp_path)
    fleet.round_failed("eu", "FLV-2208", 1)
    fleet.round_failed("eu", "FLV-2208", 2)
    fleet.round_succeeded(1)
    assert value(fleet, "fluvial_fleet_failed_rounds_total", region="eu", error_id="FLV-2208") == 2
    assert value(fleet, "fluvial_fleet_devices_failing") == 1
