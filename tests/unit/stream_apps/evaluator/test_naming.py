"""What a record of an evaluation says of a task's own numbers: all of them, and which one judges it."""

from __future__ import annotations

import pytest

from schemas.manifests import Metric
from schemas.task_metric import metric_in, values_of
from stream_apps.evaluator.naming import Naming

R2 = Metric("r2", higher_is_better=True)


def test_the_record_has_every_number_under_its_own_name_and_says_which_judges() -> None:
    fields, metric = Naming(R2, before_metrics=False).fields({"loss": 1.0, "rmse": 2.0, "r2": -0.5})
    assert fields == {
        "loss": 1.0,
        "rmse": 2.0,
        "r2": -0.5,
        "metric": "r2",
        "better": "higher",
        "metric_value": -0.5,
    }
    assert metric == R2


@pytest.mark.parametrize(
    ("before_metrics", "results", "name"),
    [
        (False, {"loss": 1.0, "auc": 0.7, "accuracy": 0.5}, "auc"),
        (True, {"loss": 1.0, "auc": 0.7, "accuracy": 0.5}, "accuracy"),
        (True, {"loss": 1.0, "rmse": 0.7}, "rmse"),
        (True, {"loss": 1.0}, "loss"),
    ],
)
def test_a_task_without_a_metric_is_judged_as_ever_where_it_is_old_else_by_the_first(
    *, before_metrics: bool, results: dict[str, float], name: str
) -> None:
    fields, metric = Naming(None, before_metrics=before_metrics).fields(results)
    assert metric.name == name and metric_in(fields) == metric


def test_numbers_that_a_record_cannot_have_are_renamed_told_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    naming = Naming(None, before_metrics=False)
    results = {"loss": 1.0, "version": 99.0, "seconds": 5.0, "accepted": 7.0, "task": 3.0, "R2 = x": 0.5}
    fields, metric = [naming.fields(results) for _ in range(3)][-1]
    assert fields["metrics_renamed"] == 5
    assert sorted(values_of(fields).values()) == sorted(results.values())
    assert metric.name == "eval_version" or metric.name in fields
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 5 and all("FLV-2243" in text for text in told)
    assert any("'version'" in text and "'eval_version'" in text for text in told)


def test_a_metric_that_is_not_returned_any_more_is_told_and_null(caplog: pytest.LogCaptureFixture) -> None:
    naming = Naming(R2, before_metrics=False)
    fields, metric = [naming.fields({"loss": 1.0, "rmse": 2.0}) for _ in range(2)][-1]
    assert fields["metric_value"] is None and metric == R2
    assert [("r2" in record.getMessage()) for record in caplog.records] == [True]
