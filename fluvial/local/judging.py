"""By which of its numbers a new task will be judged: found before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluvial.terminal.output import Reporter
    from learning import Task
    from schemas.manifests import Metric


def metric_of_task(task: Task, output: Reporter, *, seed: int = 0) -> Metric | None:
    """The task's METRIC, else what ``evaluate()`` returns first after the loss; None where that cannot be tried here.

    ``evaluate()`` is called once, on a few held-out examples; a task that ships with a METRIC needs no trial. Where the
    data are not on this machine, or ``evaluate()`` fails, the evaluator finds the metric: that is said.

    Raises UsageProblem: FLV-2240, a name that a number cannot have; FLV-2242, METRIC is none of what it returns.
    """
    from learning.task import SHIPPED_TASKS_FOLDER
    from learning.trial import metric_or_problem

    if task.metric is not None and task.path.parent == SHIPPED_TASKS_FOLDER:
        return task.metric
    metric, problem = metric_or_problem(task, seed)
    if problem is not None:
        found = "not known yet" if metric is None else f"{metric.name}, by METRIC"
        output.say(f"the task's metric is {found}: evaluate() cannot be tried here: {problem.message}")
    return metric


def in_words(metric: Metric | None) -> str:
    """``, judged by r2 (higher is better)``, or nothing."""
    from schemas.task_metric import way_of

    return "" if metric is None else f", judged by {metric.name} ({way_of(metric)} is better)"
