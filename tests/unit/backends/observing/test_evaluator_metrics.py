"""An evaluator's metrics: a task's own numbers, its target, what it recalls, and versions without an evaluation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from backends.observing.metrics import Metrics
from backends.observing.roles import METRIC_NAMES_MAX, EvaluatorMetrics
from tests.unit.backends.observing.observed import made, value

if TYPE_CHECKING:
    from pathlib import Path


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
