"""Under which names an evaluation's numbers stand in its record, and which of them judges the task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from schemas.manifests import Metric
from schemas.task_metric import ACCURACY, metric_among, metric_called, named_in_record, usable_names

RENAMED: Final = "metrics_renamed"
"""The field that counts the numbers whose own names a record cannot have; absent where there are none."""

log = logging.getLogger("fluvial.evaluator")


class Naming:
    """Of one task. ``declared`` is its genesis' metric, else its file's; each thing that is odd is said once.

    Creating a task refuses names that a record cannot have. But what ``evaluate()`` returns may change later, and a
    task may be older than that check: such a number is renamed, told and counted.
    """

    def __init__(self, declared: Metric | None, *, before_metrics: bool) -> None:
        """``before_metrics``: the task's genesis is of a format that says no metric: it is judged by its accuracy."""
        self._declared = declared
        self._before_metrics = before_metrics
        self._told: set[str] = set()

    def fields(self, results: Mapping[str, float]) -> tuple[dict[str, Any], Metric]:
        """(what the record says of ``evaluate()``'s results, the task's metric)."""
        named, renamed = usable_names(results)
        metric = self._metric(named)
        for name, instead in renamed.items():
            self._tell(
                f"evaluate() returns {name!r}, a name that records cannot have [FLV-2243]: it is published as "
                f"{instead!r}; call it so in the task file"
            )
        if metric.name not in named:
            self._tell(
                f"evaluate() does not return the task's metric {metric.name!r} any more [FLV-2242], but "
                f"{', '.join(named)}"
            )
        judges: dict[str, Any] = named_in_record(metric) | {"metric_value": named.get(metric.name)}
        return named | judges | ({RENAMED: len(renamed)} if renamed else {}), metric

    def _metric(self, named: Mapping[str, float]) -> Metric:
        if self._declared is not None:
            return self._declared
        return metric_called(ACCURACY) if self._before_metrics and ACCURACY in named else metric_among(named)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning(text)
