"""``METRIC`` of a task file, and the check of what ``evaluate()`` calls its numbers, before anything is started.

::

    METRIC = "r2"                 which way is better is known of the well-known names
    METRIC = ("loan_default_cost", "lower")

A task without it is judged by the first number after the loss that ``evaluate()`` returns, else by the loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.errors import UsageProblem
from schemas.manifests import Metric
from schemas.task_metric import (
    HIGHER,
    WAYS,
    higher_is_better,
    metric_among,
    name_instead,
    problem_with_name,
)

if TYPE_CHECKING:
    from learning.task import Task

CHECK_EXAMPLES_MAX: Final = 256
"""Held-out examples on which ``evaluate()`` is tried."""
_LIKE: Final = 'METRIC = "accuracy", or METRIC = ("wer", "lower")'


def declared_metric(module: ModuleType, where: str) -> Metric | None:
    """The file's METRIC; None where it has none.

    Raises UsageProblem: FLV-2240, its name is reserved or none; FLV-2241, it is no name, or which way is better is not
    known of it.
    """
    if not hasattr(module, "METRIC"):
        return None
    value: object = module.METRIC
    if isinstance(value, str):
        check_metric_names([value], where, said_by="METRIC")
        way = higher_is_better(value)
        if way is None:
            raise UsageProblem(
                "FLV-2241",
                f"METRIC is {value!r}, of which it is not known whether higher or lower is better",
                where=where,
                hint=f'METRIC = ({value!r}, "lower") or METRIC = ({value!r}, "higher")',
            )
        return Metric(value, higher_is_better=way)
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
        check_metric_names([value[0]], where, said_by="METRIC")
        if value[1] in WAYS:
            return Metric(value[0], higher_is_better=value[1] == HIGHER)
    raise UsageProblem(
        "FLV-2241",
        f'METRIC must be a name, or a name with "higher" or "lower", got {value!r}',
        where=where,
        hint=_LIKE,
    )


def check_metric_names(names: Iterable[str], where: str, *, said_by: str = "evaluate()") -> None:
    """UsageProblem FLV-2240 unless a record can have numbers of these names; it names each, and what to write."""
    refused = {name: problem for name in names if (problem := problem_with_name(name))}
    if not refused:
        return
    told = "; ".join(f"{name!r} {problem}" for name, problem in refused.items())
    instead = ", ".join(f"{name!r} → {name_instead(name)!r}" for name in refused)
    raise UsageProblem(
        "FLV-2240", f"{said_by} uses names that it cannot: {told}", where=where, hint=f"rename {instead}"
    )


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
    from learning.tensors import initial_parameters
    from learning.training import evaluate_parameters

    held_out = task.data().test
    if len(held_out) > CHECK_EXAMPLES_MAX:
        some = np.random.default_rng(0).choice(len(held_out), CHECK_EXAMPLES_MAX, replace=False)
        held_out = held_out.subset(np.sort(some))
    return check_results(task, evaluate_parameters(task, initial_parameters(task, seed), held_out))
