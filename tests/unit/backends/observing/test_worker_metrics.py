"""A worker's metrics: devices add no series, partitions take theirs along, and when it is ready and alive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from aggregation.errors import ConnectionProblem, IntegrityProblem
from backends.observing.metrics import Metrics
from backends.observing.worker import WorkerMetrics
from tests.unit.backends.observing.observed import SLOT, judge, record, state, value

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
