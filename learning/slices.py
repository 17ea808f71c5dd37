"""How a version does on parts of the held-out data: by class and by cohort, and how far the cohorts lie apart.

A part is evaluated by the task's own ``evaluate``, so any task that reports an accuracy has all of it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from learning.cohorts import cohort_ids
from learning.datasets import Examples
from learning.kinds.protocol import Flat
from learning.partition import split_among_devices
from learning.task import Task
from learning.training import evaluate_parameters

COHORTS_DEFAULT: Final = 10
CLASSES_MAX: Final = 100
"""Of more classes none is reported: a record has to stay small."""
LABEL_SKEW_ALPHA: Final = 0.5
SEED: Final = 20_260
DECILE: Final = 10


class Slices:
    """The parts of one task's held-out data, made once."""

    def __init__(self, task: Task, held_out: Examples) -> None:
        """Raises UsageProblem FLV-7040 when the task's ``cohorts`` gives no cohort a held-out example."""
        self._task = task
        self._parts: dict[str, Examples] = {}
        if held_out.y.dtype == np.int64 and held_out.y.ndim == 1:
            classes = np.unique(held_out.labels)
            if len(classes) <= CLASSES_MAX:
                for one in classes:
                    self._parts[f"class_{one}"] = held_out.subset(np.flatnonzero(held_out.labels == one))
        cohorts = {f"cohort_{cohort}": part for cohort, part in cohorts_of(task, held_out)}
        self._cohorts = tuple(cohorts)
        self._parts |= cohorts

    def evaluate(self, model: Flat) -> dict[str, float]:
        """``accuracy_<part>`` of every part, and of the cohorts the worst and best decile and the gap between them."""
        found: dict[str, float] = {}
        for name, part in self._parts.items():
            results = evaluate_parameters(self._task, model, part)
            if "accuracy" in results:
                found[f"accuracy_{name}"] = results["accuracy"]
        cohorts = sorted(found[f"accuracy_{name}"] for name in self._cohorts if f"accuracy_{name}" in found)
        if cohorts:
            tenth = math.ceil(len(cohorts) / DECILE)
            worst, best = float(np.mean(cohorts[:tenth])), float(np.mean(cohorts[-tenth:]))
            found |= {
                "accuracy_worst_decile": worst,
                "accuracy_best_decile": best,
                "fairness_gap": best - worst,
            }
        return found


def cohorts_of(task: Task, held_out: Examples) -> list[tuple[int, Examples]]:
    """(cohort, its examples), ascending: as the task says, else ten with the label skew that devices have."""
    ids = cohort_ids(task, held_out)
    if ids is None:
        count = min(COHORTS_DEFAULT, len(held_out))
        return list(enumerate(split_among_devices(held_out, count, LABEL_SKEW_ALPHA, SEED)))
    return [(int(cohort), held_out.subset(np.flatnonzero(ids == cohort))) for cohort in np.unique(ids)]
