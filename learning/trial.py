"""One ``evaluate()`` before anything is started: what it returns, and by which of it the task is judged."""

from __future__ import annotations

from typing import Final

import numpy as np

from aggregation.errors import FluvialError, UsageProblem
from learning.metric import check_metric_names
from learning.task import Task
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters
from schemas.manifests import Metric
from schemas.task_metric import metric_among

CHECK_EXAMPLES_MAX: Final = 256
"""Held-out examples on which ``evaluate()`` is tried."""
_REFUSED: Final = frozenset({"FLV-2240", "FLV-2242"})


def check_results(task: Task, results: dict[str, float]) -> Metric:
    """By what the task is judged, given what its ``evaluate()`` returns.

    Raises UsageProblem: FLV-2240, a name that a number cannot have; FLV-2242, METRIC is not among them.
    """
    where = str(task.path)
    check_metric_names(results, where)
    if task.metric is None:
        return metric_among(results)
    if task.metric.name not in results:
        raise UsageProblem(
            "FLV-2242",
            f"METRIC is {task.metric.name!r}, and evaluate() returns {', '.join(results)}",
            where=where,
            hint=f"return {task.metric.name!r} from evaluate(), or name one of those",
        )
    return task.metric


def tried_metric(task: Task, seed: int = 0) -> Metric:
    """By what the task is judged, found by one ``evaluate()`` of its first model on a few held-out examples.

    Raises what ``check_results`` does, and what loading data and evaluating raise.
    """
    first, held_out = initial_parameters(task, seed), task.data().test
    if len(held_out) > CHECK_EXAMPLES_MAX:
        some = np.random.default_rng(0).choice(len(held_out), CHECK_EXAMPLES_MAX, replace=False)
        try:
            return check_results(task, evaluate_parameters(task, first, held_out.subset(np.sort(some))))
        except UsageProblem as problem:
            if problem.error_id != "FLV-2209":  # which may be theirs: too few, or of one class only
                raise
    return check_results(task, evaluate_parameters(task, first, held_out))


def metric_or_problem(task: Task, seed: int = 0) -> tuple[Metric | None, FluvialError | None]:
    """``tried_metric``; where that cannot be tried, its METRIC, if it has one, and why not.

    Raises what ``check_results`` does.
    """
    try:
        return tried_metric(task, seed), None
    except FluvialError as problem:
        if problem.error_id in _REFUSED:
            raise
        return task.metric, problem
