"""``METRIC`` of a task file, and what its ``evaluate()`` may call its numbers: told before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregation.errors import UsageProblem
from fluvial.local import create
from fluvial.local.judging import metric_of_task
from fluvial.session.simulation import simulate
from fluvial.terminal.output import Output
from learning.metric import check_metric_names
from learning.task import Task, load_task, shipped_tasks
from learning.trial import CHECK_EXAMPLES_MAX, tried_metric
from schemas.manifests import NEWEST_GENESIS, Genesis, Metric
from schemas.task_metric import RESERVED

FILE = """
import numpy as np
from torch import nn
import learning

{metric}
N = {examples}

def data():
    {data}
    x = np.random.default_rng(1).normal(size=(N, 2))
    y = (x @ np.array([1.0, -2.0]))[:, None]
    return learning.Dataset(train=(x, y), test=(x, y))

def model():
    return nn.Linear(2, 1)

def train(model, data, config):
    return learning.fit(model, data, config, nn.functional.mse_loss)

def evaluate(model, data):
    loss = learning.score(model, data, nn.functional.mse_loss)["loss"]
    {evaluate}
    return {results}
"""
DEFAULT = '{"loss": loss, "mae": loss ** 0.5}'


def task_of(folder: Path, **parts: Any) -> Task:
    text = FILE.format(
        **{"metric": "", "results": DEFAULT, "data": "", "evaluate": "", "examples": 50} | parts
    )
    (folder / "mine.py").write_text(text)
    return load_task(str(folder / "mine.py"))


def refused(folder: Path, **parts: Any) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        tried_metric(task_of(folder, **parts))
    return caught.value


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("", Metric("mae", higher_is_better=False)),
        ('METRIC = "mae"', Metric("mae", higher_is_better=False)),
        ('METRIC = "loss"', Metric("loss", higher_is_better=False)),
        ('METRIC = ("mae", "higher")', Metric("mae", higher_is_better=True)),
        ('METRIC = ["mae", "lower"]', Metric("mae", higher_is_better=False)),
    ],
)
def test_a_task_is_judged_by_its_metric_else_by_the_first_after_the_loss(
    metric: str, expected: Metric, tmp_path: Path
) -> None:
    assert tried_metric(task_of(tmp_path, metric=metric)) == expected


def test_a_task_that_reports_the_loss_alone_is_judged_by_it(tmp_path: Path) -> None:
    assert tried_metric(task_of(tmp_path, results='{"loss": loss}')) == Metric("loss", higher_is_better=False)


@pytest.mark.parametrize(
    "value",
    [
        "3",
        "None",
        "()",
        '("mae",)',
        '("mae", "down")',
        '("mae", True)',
        '("mae", "lower", 1)',
        '{"mae": 1}',
        '(1, "lower")',
    ],
)
def test_what_is_no_metric_is_refused_when_the_file_is_loaded(value: str, tmp_path: Path) -> None:
    problem = refused(tmp_path, metric=f"METRIC = {value}")
    assert problem.error_id == "FLV-2241" and 'METRIC = "accuracy"' in problem.hint


def test_a_name_that_says_no_direction_needs_one(tmp_path: Path) -> None:
    problem = refused(tmp_path, metric='METRIC = "foo"')
    assert problem.error_id == "FLV-2241" and "METRIC = ('foo', \"lower\")" in problem.hint


@pytest.mark.parametrize("value", ['"seconds"', '("version", "lower")', '"a=b"', '""'])
def test_a_metric_of_a_reserved_name_is_refused(value: str, tmp_path: Path) -> None:
    assert refused(tmp_path, metric=f"METRIC = {value}").error_id == "FLV-2240"


def test_a_metric_that_evaluate_does_not_return_is_refused_with_what_it_does(tmp_path: Path) -> None:
    problem = refused(tmp_path, metric='METRIC = "r2"')
    assert problem.error_id == "FLV-2242" and "returns loss, mae" in problem.message


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_every_reserved_name_is_refused_by_name_with_another_to_write(name: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        check_metric_names(["loss", name], "mine.py")
    assert caught.value.error_id == "FLV-2240" and caught.value.where == "mine.py"
    assert repr(name) in caught.value.message and f"{name!r} → 'eval_" in caught.value.hint


def test_all_wrong_names_are_told_at_once(tmp_path: Path) -> None:
    problem = refused(tmp_path, results='{"loss": loss, "version": 1, "a=b": 2, "task": 3}')
    assert all(name in problem.message for name in ("'version'", "'a=b'", "'task'"))
    assert "'a=b' → 'a_b'" in problem.hint


def test_a_simulation_refuses_them_before_its_first_version(tmp_path: Path) -> None:
    seen: list[object] = []
    with pytest.raises(UsageProblem) as caught:
        simulate(
            task_of(tmp_path, results='{"loss": loss, "accepted": 1.0}'), versions=1, on_version=seen.append
        )
    assert caught.value.error_id == "FLV-2240" and not seen


def test_a_simulation_is_judged_by_the_tasks_metric(tmp_path: Path) -> None:
    result = simulate(task_of(tmp_path, examples=200), devices=3, versions=2)
    assert result.metric == Metric("mae", higher_is_better=False)
    assert result.curve() == [one.metrics["mae"] for one in result.versions]


def test_evaluate_is_tried_on_a_few_examples_and_on_all_where_few_will_not_do(tmp_path: Path) -> None:
    few = task_of(tmp_path, examples=1000, evaluate=f"assert len(data) == {CHECK_EXAMPLES_MAX}")
    assert tried_metric(few).name == "mae"
    every = task_of(tmp_path, examples=1000, evaluate="assert len(data) == N")
    assert tried_metric(every).name == "mae"


def test_what_ships_says_its_metric_and_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learning.trial.evaluate_parameters", None)
    for name in shipped_tasks():
        expected = "r2" if name == "diabetes" else "accuracy"
        assert metric_of_task(load_task(name), Output(quiet=True)) == Metric(expected, higher_is_better=True)


class Says:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    "broken", [{"data": "raise OSError('no disk')"}, {"evaluate": "raise ValueError('not today')"}]
)
@pytest.mark.parametrize(
    ("metric", "expected"), [("", None), ('METRIC = "r2"', Metric("r2", higher_is_better=True))]
)
def test_where_evaluate_cannot_be_tried_the_metric_is_found_later_and_that_is_said(
    broken: dict[str, str], metric: str, expected: Metric | None, tmp_path: Path
) -> None:
    says: Any = Says()
    assert metric_of_task(task_of(tmp_path, metric=metric, **broken), says) == expected
    assert len(says.lines) == 1 and "cannot be tried here" in says.lines[0]
    assert ("not known yet" in says.lines[0]) == (expected is None)


def test_wrong_names_are_no_reason_to_find_it_later(tmp_path: Path) -> None:
    says: Any = Says()
    with pytest.raises(UsageProblem):
        metric_of_task(task_of(tmp_path, results='{"loss": loss, "version": 1.0}'), says)


V3 = Genesis(
    task="t",
    regions={},
    control_authority="",
    layout=(),
    policy={},
    model_sha256="",
    optimizer_sha256="",
    nonce="0" * 64,
    format=NEWEST_GENESIS,
)
MAE, R2 = Metric("mae", higher_is_better=False), Metric("r2", higher_is_better=True)


@pytest.mark.parametrize(
    ("metric", "existing", "expected"),
    [
        ("", None, MAE),
        ("", msgspec.structs.replace(V3, metric=R2), R2),
        ("", V3, None),
        ('METRIC = "mae"', msgspec.structs.replace(V3, metric=R2), MAE),
        (
            'METRIC = "mae"',
            msgspec.structs.replace(V3, records=None, nonce=None, format="fluvial/genesis/v1"),
            None,
        ),
    ],
    ids=["a new task", "one that is there", "one whose metric was not known", "another METRIC", "an old one"],
)
def test_creating_a_task_again_finds_its_metric_as_it_was(
    metric: str, existing: Genesis | None, expected: Metric | None, tmp_path: Path
) -> None:
    assert create._metric(existing, task_of(tmp_path, metric=metric), Output(quiet=True), 0) == expected
