"""How a version does on parts of the held-out data: by class and by cohort, and how far the cohorts lie apart.

A part is evaluated by the task's own ``evaluate``, and judged by the task's metric.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import numpy as np

from aggregation.errors import FluvialError
from learning.cohorts import cohort_ids
from learning.datasets import Examples
from learning.kinds.protocol import Flat
from learning.partition import split_among_devices
from learning.task import Task
from learning.training import evaluate_parameters
from schemas.manifests import Metric
from schemas.task_metric import ACCURACY, LOSS

COHORTS_DEFAULT: Final = 10
CLASSES_MAX: Final = 100
"""Of more classes none is reported: a record has to stay small."""
LABEL_SKEW_ALPHA: Final = 0.5
SEED: Final = 20_260
DECILE: Final = 10
_OF_ONE_CLASS: Final = frozenset({ACCURACY, LOSS})
"""Metrics that mean something on examples of one class: an AUC or an F1 does not."""

log = logging.getLogger("fluvial.evaluator")


class Slices:
    """The parts of one task's held-out data, made once."""

    def __init__(self, task: Task, held_out: Examples) -> None:
        """Raises UsageProblem FLV-7040 when the task's ``cohorts`` gives no cohort a held-out example."""
        self._task = task
        self._classes: dict[str, Examples] = {}
        if held_out.y.dtype == np.int64 and held_out.y.ndim == 1:
            classes = np.unique(held_out.labels)
            if len(classes) <= CLASSES_MAX:
                for one in classes:
                    self._classes[f"class_{one}"] = held_out.subset(np.flatnonzero(held_out.labels == one))
        self._cohorts = {f"cohort_{cohort}": part for cohort, part in cohorts_of(task, held_out)}
        self._failed: set[str] = set()

    def evaluate(self, model: Flat, metric: Metric) -> dict[str, float]:
        """``<metric>_<part>`` of every part, and of the cohorts the worst and best decile and the gap between them.

        A part on which ``evaluate()`` fails, or gives no finite number, is left out, and said once.
        """
        name = metric.name
        parts = self._cohorts if name not in _OF_ONE_CLASS else self._classes | self._cohorts
        found = {
            part: value
            for part in parts
            if (value := self._value(part, parts[part], model, name)) is not None
        }
        ranked = sorted(
            (found[part] for part in self._cohorts if part in found), reverse=not metric.higher_is_better
        )
        named = {f"{name}_{part}": value for part, value in found.items()}
        if not ranked:
            return named
        tenth = math.ceil(len(ranked) / DECILE)
        worst, best = float(np.mean(ranked[:tenth])), float(np.mean(ranked[-tenth:]))
        return named | {
            f"{name}_worst_decile": worst,
            f"{name}_best_decile": best,
            "fairness_gap": abs(best - worst),
        }

    def _value(self, part: str, examples: Examples, model: Flat, name: str) -> float | None:
        try:
            value = evaluate_parameters(self._task, model, examples).get(name)
            why = "" if value is None or math.isfinite(value) else f"{name} is {value}"
        except FluvialError as problem:
            value, why = None, problem.message
        if why and part not in self._failed:
            self._failed.add(part)
            log.warning("%s of the held-out data (%d examples) is left out: %s", part, len(examples), why)
        return None if why else value


def cohorts_of(task: Task, held_out: Examples) -> list[tuple[int, Examples]]:
    """(cohort, its examples), ascending: as the task says, else ten with the label skew that devices have."""
    ids = cohort_ids(task, held_out)
    if ids is None:
        count = min(COHORTS_DEFAULT, len(held_out))
        return list(enumerate(split_among_devices(held_out, count, LABEL_SKEW_ALPHA, SEED)))
    return [(int(cohort), held_out.subset(np.flatnonzero(ids == cohort))) for cohort in np.unique(ids)]
