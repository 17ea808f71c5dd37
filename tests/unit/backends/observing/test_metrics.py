"""The catalogue of metrics and its page; what each role exports; what fleets, canaries and auditors count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem
from backends.observing.metrics import CATALOGUE, ROLES, Metrics
from backends.observing.roles import AuditorMetrics, CanaryMetrics, FleetMetrics
from fluvial.documents.metrics_page import FIELD, PAGE, SECTIONS, page
from tests.unit.backends.observing.observed import made, value

if TYPE_CHECKING:
    from pathlib import Path


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


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m fluvial.documents.metrics_page"
    names = {metric.name for metric in CATALOGUE}
    assert names == {metric.name for _, metrics in SECTIONS for metric in metrics}
    asked = {name for _, _, answers in FIELD for name in answers}
    assert {name for name in asked if not name.startswith("process_")} <= names


def test_failed_rounds_are_counted_by_cause_and_devices_that_fail_now_are_shown(tmp_path: Path) -> None:
    fleet: Any = made("fleet", tmp_path)
    fleet.round_failed("eu", "FLV-2208", 1)
    fleet.round_failed("eu", "FLV-2208", 2)
    fleet.round_succeeded(1)
    assert value(fleet, "fluvial_fleet_failed_rounds_total", region="eu", error_id="FLV-2208") == 2
    assert value(fleet, "fluvial_fleet_devices_failing") == 1
