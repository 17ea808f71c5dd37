"""How good the versions of a task are, in its own metric: what every view shows, whatever ``evaluate()`` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.task_metric import LOSS, best_version, metric_in, metric_of, values_of, way_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.manifests import Metric

_SMALL: Final = 1e-3
_LARGE: Final = 1e5


@dataclass(frozen=True, slots=True)
class Quality:
    """``values``: every number of the task's own, by version and name. ``metric``: None while nothing is known."""

    metric: Metric | None
    values: Mapping[int, Mapping[str, float]]

    @property
    def name(self) -> str:
        """What the metric is called; "metric" before that is known."""
        return "metric" if self.metric is None else self.metric.name

    @property
    def names(self) -> list[str]:
        """What the task reports: its metric, the loss, then the others by name."""
        found = {name for one in self.values.values() for name in one}
        first = [name for name in dict.fromkeys((self.name, LOSS)) if name in found]
        return first + sorted(found - set(first))

    def curve(self, name: str | None = None) -> list[tuple[int, float]]:
        """(version, value) of one number, else of the metric, ascending; versions without it are left out."""
        wanted = self.name if name is None else name
        return [
            (version, self.values[version][wanted])
            for version in sorted(self.values)
            if wanted in self.values[version]
        ]

    def value(self, version: int) -> float | None:
        """The metric's value of a version; None where it was not evaluated, or is no finite number."""
        return self.values.get(version, {}).get(self.name)

    def best(self) -> tuple[int, float] | None:
        """(version, value) of the best one, the earliest of equal ones."""
        if self.metric is None:
            return None
        values = dict(self.curve())
        version = best_version(self.metric, values)
        return None if version is None else (version, values[version])

    def document(self) -> dict[str, Any] | None:
        """The metric for JSON: its name, which way is better, its newest and its best value."""
        if self.metric is None:
            return None
        curve, best = self.curve(), self.best()
        return {
            "name": self.metric.name,
            "better": way_of(self.metric),
            "last": None if not curve else {"version": curve[-1][0], "value": curve[-1][1]},
            "best": None if best is None else {"version": best[0], "value": best[1]},
        }


def quality_of(declared: Metric | None, evaluations: Mapping[int, Mapping[str, Any]]) -> Quality:
    """Of records of evaluations by version. ``declared`` is the genesis' metric."""
    return Quality(
        metric_of_all(declared, [evaluations[version] for version in sorted(evaluations)]),
        {version: values_of(record) for version, record in evaluations.items()},
    )


def metric_of_all(declared: Metric | None, evaluations: Sequence[Mapping[str, Any]]) -> Metric | None:
    """The metric of a task: as its genesis says, else as the newest evaluation that names it, else by the newest."""
    if declared is not None or not evaluations:
        return declared
    named = (found for one in reversed(evaluations) if (found := metric_in(one)) is not None)
    return next(named, None) or metric_of(None, evaluations[-1])


def in_digits(value: float, digits: int = 4) -> str:
    """A value of any metric for people: ``0.8712``, ``-3.2041``, ``2.1e-05``, ``1.283e+06``."""
    size = abs(value)
    return f"{value:.{digits}f}" if size == 0 or _SMALL <= size < _LARGE else f"{value:.{digits}g}"


def in_a_line(metrics: Mapping[str, float]) -> str:
    """Numbers by name, as the task gives them: ``loss 0.4210  r2 0.8712``."""
    return "  ".join(f"{name} {in_digits(value)}" for name, value in metrics.items())
