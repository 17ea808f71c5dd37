"""Evaluations by class and cohort: what a task says of its cohorts, and by which metric they are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.slices import Slices
from learning.task import load_task
from learning.tensors import parameters_of
from schemas.manifests import Metric

ROOT = Path(__file__).parents[3]
ACCURACY = Metric("accuracy", higher_is_better=True)
MAE = Metric("mae", higher_is_better=False)


def test_an_evaluation_by_class_and_cohort() -> None:
    task = load_task("digits")
    held_out = task.data().test
    model = parameters_of(task.model())
    found = Slices(task, held_out).evaluate(model, ACCURACY)
    assert found == Slices(task, held_out).evaluate(model, ACCURACY)
    assert sum(name.startswith("accuracy_class_") for name in found) == 10
    assert sum(name.startswith("accuracy_cohort_") for name in found) == 10
    cohorts = [value for name, value in found.items() if name.startswith("accuracy_cohort_")]
    assert (found["accuracy_worst_decile"], found["accuracy_best_decile"]) == (min(cohorts), max(cohorts))
    assert found["fairness_gap"] == pytest.approx(max(cohorts) - min(cohorts))


def task_with(tmp_path: Path, body: str) -> Any:
    path = tmp_path / "mine.py"
    path.write_text(
        (ROOT / "learning" / "tasks" / "digits.py").read_text() + "\n\ndef cohorts(data):\n    " + body
    )
    return load_task(str(path))


def test_a_task_may_say_its_cohorts(tmp_path: Path) -> None:
    task = task_with(tmp_path, "return data.labels % 2")
    found = Slices(task, task.data().test).evaluate(parameters_of(task.model()), ACCURACY)
    assert {name for name in found if name.startswith("accuracy_cohort_")} == {
        "accuracy_cohort_0",
        "accuracy_cohort_1",
    }


@pytest.mark.parametrize(
    "body",
    [
        "return [1, 2]",
        "return data.labels * 1.5",
        "return data.labels - 1",
        "raise ValueError",
        "return data.labels + 95",
    ],
)
def test_wrong_cohorts_stop_the_start(body: str, tmp_path: Path) -> None:
    task = task_with(tmp_path, body)
    with pytest.raises(UsageProblem) as caught:
        Slices(task, task.data().test)
    assert caught.value.error_id == "FLV-7040"


def test_targets_that_are_no_classes_have_cohorts_only() -> None:
    x = np.zeros((40, 64), dtype=np.float32)
    slices = Slices(load_task("digits"), Examples(x, x))
    assert (len(slices._classes), len(slices._cohorts)) == (0, 10)


REGRESSION = """
import numpy as np
from torch import nn
import learning

def data():
    x = np.arange(80.0).reshape(40, 2) / 40
    return learning.Dataset(train=(x, x[:, :1]), test=(x, x[:, :1]))

def model():
    return nn.Linear(2, 1)

def train(model, data, config):
    return learning.fit(model, data, config, nn.functional.mse_loss)

def evaluate(model, data):
    loss = learning.score(model, data, nn.functional.mse_loss)["loss"]
    {failure}
    return {{"loss": loss, "mae": float(data.x[0, 0])}}

def cohorts(data):
    return (data.x[:, 0] * 20).astype(int) // 10
"""


def test_cohorts_are_judged_by_the_tasks_own_metric_in_its_direction(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REGRESSION.format(failure=""))
    task = load_task(str(tmp_path / "mine.py"))
    found = Slices(task, task.data().test).evaluate(parameters_of(task.model()), MAE)
    cohorts = {name: value for name, value in found.items() if name.startswith("mae_cohort_")}
    assert len(cohorts) == 4 and not any("class" in name for name in found)
    assert (found["mae_worst_decile"], found["mae_best_decile"]) == (
        max(cohorts.values()),
        min(cohorts.values()),
    )
    assert (
        found["fairness_gap"] == pytest.approx(max(cohorts.values()) - min(cohorts.values()))
        and found["fairness_gap"] > 0
    )


@pytest.mark.parametrize(
    "failure",
    [
        "if data.x[0, 0] == 0: raise ValueError('too few')",
        "if data.x[0, 0] == 0: return {'loss': 1.0, 'mae': float('nan')}",
    ],
)
def test_a_cohort_that_cannot_be_evaluated_is_left_out_and_said_once(
    failure: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(REGRESSION.format(failure=failure))
    task = load_task(str(tmp_path / "mine.py"))
    slices, model = Slices(task, task.data().test), parameters_of(task.model())
    for _ in range(2):
        found = slices.evaluate(model, MAE)
        assert {name for name in found if "_cohort_" in name} == {f"mae_cohort_{one}" for one in (1, 2, 3)}
    assert [record.message.split(" ")[0] for record in caplog.records] == ["cohort_0"]
