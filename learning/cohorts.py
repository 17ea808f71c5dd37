"""Which cohort an example, and a device, belongs to: what a task's ``cohorts(data)`` says, checked.

A device says it in its updates' metrics, for whoever looks on. Where a policy chooses devices by cohort, it is what the
device's certificate names that counts: ``certified_cohorts`` are the names for devices whose CA is at hand, as in a
fleet or a simulation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from aggregation.policy import Policy
from aggregation.selection import selection_named
from learning.datasets import Examples
from learning.task import Task

COHORTS_MAX: Final = 100
COHORT: Final = "cohort"
"""The metric in which a device says which cohort it is of."""

log = logging.getLogger("fluvial.learning")
_warned: set[tuple[str, str]] = set()


def cohort_ids(task: Task, data: Examples) -> NDArray[Any] | None:
    """int[n]: the cohort of each example, 0 to 99; None without ``cohorts``. Raises UsageProblem FLV-7040."""
    own = task.cohorts(data)
    if own is None:
        return None
    ids = np.asarray(own)
    examples = len(data)
    if ids.shape != (examples,) or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < COHORTS_MAX)).all():
        raise UsageProblem(
            "FLV-7040",
            f"cohorts() must return one whole number from 0 to {COHORTS_MAX - 1} for each of the {examples} "
            f"examples, got {ids.dtype} of shape {list(ids.shape)}",
            where=str(task.path),
            hint="end cohorts() with: return numpy.asarray(groups, dtype=int)",
        )
    return ids


def certified_cohorts(policy: Policy, task: Task, shards: Iterable[Examples]) -> Sequence[str]:
    """What the certificate of each shard's device is to name: its cohort's number, "" where it has none.

    () where the policy does not choose by cohort.
    """
    if not selection_named(policy.selection.kind).asks_cohort:
        return ()
    said = (declared_cohort(task, shard) for shard in shards)
    return [f"{one[COHORT]:.0f}" if one else "" for one in said]


def declared_cohort(task: Task, data: Examples) -> dict[str, float]:
    """``{"cohort": k}``, the most frequent cohort of a device's own examples, the lowest of several; else ``{}``.

    It is for looking only, so a ``cohorts`` that cannot be used on a device's data is a warning, once a task, and
    training goes on.
    """
    try:
        ids = cohort_ids(task, data)
    except UsageProblem as problem:
        key = (str(task.path), task.source_sha256)
        if key not in _warned:
            _warned.add(key)
            log.warning("devices of task %s say no cohort: %s", task.name, problem)
        return {}
    if ids is None or not len(ids):
        return {}
    return {COHORT: float(np.bincount(ids.astype(np.int64)).argmax())}
