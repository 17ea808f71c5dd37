"""What a number of ``evaluate()`` may be called, which of them judges a task, and which way is better."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fluvial.export.columns import COLUMNS
from schemas.manifests import Metric
from schemas.task_metric import (
    NAME_CHARACTERS_MAX,
    RESERVED,
    best_version,
    higher_is_better,
    is_better,
    metric_among,
    metric_of,
    name_instead,
    problem_with_name,
    reaches,
    usable_names,
    values_of,
)

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "metrics.v1.schema.json").read_text())
OF_A_TASK = {"loss", "accuracy"}
USABLE = [
    "loss",
    "r2",
    "R2 score",
    "top-5",
    "recall@5",
    "mAP@[.5:.95]",
    "F1 (macro)",
    "val/loss",
    "précision",
    "x",
    "Version",
]
UNUSABLE = ["", " ", " r2", "r2 ", "5", "_x", "a=b", "a,b", 'a"b', "a<b", "a\nb", "a$b$", "a\\b", "x" * 65]
SHAPES = [
    "verdicts_mine",
    "accuracy_class_3",
    "r2_cohort_7",
    "r2_worst_decile",
    "x_best_decile",
    "cohort_3_accepted",
]


def fields_of_records() -> set[str]:
    return {name for kind in SCHEMA["$defs"].values() for name in kind["properties"]}


def test_every_field_that_a_record_has_is_reserved_and_nothing_of_a_tasks_own() -> None:
    assert fields_of_records() - OF_A_TASK - {"accuracy_worst_decile", "accuracy_best_decile"} <= RESERVED
    assert all(problem_with_name(name) for name in (fields_of_records() | set(COLUMNS)) - OF_A_TASK)
    assert not any(problem_with_name(name) for name in OF_A_TASK)


@pytest.mark.parametrize("name", USABLE)
def test_usable_names(name: str) -> None:
    assert problem_with_name(name) == ""
    assert name_instead(name) == name


@pytest.mark.parametrize("name", [*UNUSABLE, *SHAPES, *sorted(RESERVED)])
def test_names_that_cannot_be_have_one_to_use_instead(name: str) -> None:
    assert problem_with_name(name)
    assert problem_with_name(name_instead(name)) == "", name_instead(name)
    assert len(name_instead(name)) <= NAME_CHARACTERS_MAX


def test_renamed_numbers_are_all_there_and_none_takes_anothers_place() -> None:
    results = {
        "loss": 1.0,
        "version": 2.0,
        "eval_version": 3.0,
        "task": 4.0,
        "a=b": 5.0,
        "a,b": 6.0,
        "a_b": 7.0,
    }
    kept, renamed = usable_names(results)
    assert sorted(kept.values()) == sorted(results.values())
    assert set(renamed) == {"version", "task", "a=b", "a,b"}
    assert not any(problem_with_name(name) for name in kept)
    assert kept["eval_version"] == 3.0 and kept["a_b"] == 7.0
    assert all(kept[new] == results[old] for old, new in renamed.items())


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        *(
            (name, True)
            for name in ("accuracy", "val_accuracy", "Accuracy@1", "r2", "R2 score", "R²", "adjusted_r2")
        ),
        *(
            (name, True)
            for name in ("auc", "roc_auc", "AUROC", "f1", "F1 (macro)", "f1_score", "mAP@50", "top5")
        ),
        *(
            (name, True)
            for name in ("explained_variance", "true_positive_rate", "bleu", "score", "logLikelihood")
        ),
        *(
            (name, True)
            for name in ("neg_mean_squared_error", "neg_rmse", "hit_rate", "mean_iou", "cohen_kappa")
        ),
        *(
            (name, False)
            for name in ("loss", "val/loss", "mae", "RMSE", "rmse_celsius", "mean_absolute_error")
        ),
        *(
            (name, False)
            for name in ("perplexity", "error_rate", "wer", "f1_loss", "mae_score", "logLoss", "MSE")
        ),
        *((name, False) for name in ("negative_log_likelihood", "false_positive_rate", "MeanSquaredError")),
        *((name, None) for name in ("foo", "temperature", "count", "x1")),
    ],
)
def test_which_way_is_better_is_known_of_well_known_names(name: str, *, higher: bool | None) -> None:
    assert higher_is_better(name) is higher


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"loss": 1.0}, Metric("loss", higher_is_better=False)),
        ({"loss": 1.0, "rmse": 2.0, "r2": 0.5}, Metric("rmse", higher_is_better=False)),
        ({"r2": 0.5, "loss": 1.0, "rmse": 2.0}, Metric("r2", higher_is_better=True)),
        ({"loss": 1.0, "foo": 2.0}, Metric("foo", higher_is_better=True)),
    ],
)
def test_a_task_that_declares_none_is_judged_by_the_first_that_is_not_the_loss(
    results: dict[str, float], expected: Metric
) -> None:
    assert metric_among(results) == expected


MAE = Metric("mae", higher_is_better=False)


@pytest.mark.parametrize(
    ("declared", "record", "expected"),
    [
        (MAE, {"accuracy": 0.5, "metric": "r2", "better": "higher"}, MAE),
        (MAE, None, MAE),
        (None, None, None),
        (
            None,
            {"loss": 1, "metric": "wer", "better": "lower", "accuracy": 0.5},
            Metric("wer", higher_is_better=False),
        ),
        (None, {"loss": 1, "auc": 0.7, "accuracy": 0.5}, Metric("accuracy", higher_is_better=True)),
        (
            None,
            {"loss": 1, "version": 3, "rmse": 0.7, "seconds": 2.0},
            Metric("rmse", higher_is_better=False),
        ),
        (None, {"loss": 1, "version": 3}, Metric("loss", higher_is_better=False)),
        (None, {"loss": 1, "metric": "version", "better": "lower"}, Metric("loss", higher_is_better=False)),
        (None, {"loss": 1, "metric": "r2", "better": "sideways"}, Metric("loss", higher_is_better=False)),
        (None, {"loss": 1, "metric": ["r2"], "better": "lower"}, Metric("loss", higher_is_better=False)),
    ],
)
def test_the_genesis_goes_before_the_record_and_the_record_before_its_names(
    declared: Metric | None, record: dict[str, Any] | None, expected: Metric | None
) -> None:
    assert metric_of(declared, record) == expected


def test_a_tasks_own_values_are_its_finite_numbers_and_no_field_of_the_record() -> None:
    record = {
        "loss": 1,
        "r2": -3.5,
        "nan": math.nan,
        "big": 10**400,
        "text": "x",
        "flag": True,
        "version": 3,
        "seconds": 1.0,
    }
    assert values_of(record | {"r2_cohort_1": 0.2, "verdicts_accepted": 5}) == {"loss": 1.0, "r2": -3.5}


def test_better_best_and_reached_follow_the_direction() -> None:
    r2 = Metric("r2", higher_is_better=True)
    values = {0: -4.0, 1: 0.5, 2: 0.9, 3: 0.9, 4: math.nan, 5: 0.2}
    assert best_version(r2, values) == 2
    assert best_version(MAE, values) == 0
    assert best_version(r2, {1: math.nan}) is None and best_version(r2, {}) is None
    assert is_better(r2, 2, 1) and is_better(MAE, 1, 2) and not is_better(MAE, 1, 1)
    assert reaches(r2, 0.9, 0.9) and reaches(r2, 0.95, 0.9) and not reaches(r2, 0.8, 0.9)
    assert reaches(MAE, 0.9, 0.9) and reaches(MAE, 0.8, 0.9) and not reaches(MAE, 0.95, 0.9)
