"""What a task's windows cost by the price list, in its unit, and what a point of the task's metric cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fluvial.reading.quality import Quality
from schemas.task_metric import ACCURACY, is_finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

POINT_OF_A_SHARE: Final = 0.01
"""A point of what is shown in percent; of any other metric it is 1."""

Window = tuple[str, int, int]
"""(region, partition, sequence)."""


@dataclass(slots=True)
class Costs:
    """The costs that ``region_minute`` records tell, the first of each minute of each window."""

    minutes: dict[Window, dict[int, float]] = field(default_factory=dict)
    currencies: set[str] = field(default_factory=set)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record of the metrics topic; one that is no such minute changes nothing."""
        region, currency, cost = record.get("region"), record.get("currency"), record.get("cost_total")
        partition, sequence, minute_ms = (record.get(name) for name in ("partition", "sequence", "minute_ms"))
        if record.get("kind") != "region_minute" or not isinstance(region, str) or not is_finite(cost):
            return
        if type(partition) is not int or type(sequence) is not int or type(minute_ms) is not int:
            return
        self.minutes.setdefault((region, partition, sequence), {}).setdefault(minute_ms, float(cost))
        if isinstance(currency, str):
            self.currencies.add(currency)

    @property
    def currency(self) -> str:
        """The price list's unit; "mixed units" where there were several lists, "" before anything was told."""
        return "mixed units" if len(self.currencies) > 1 else next(iter(self.currencies), "")

    @property
    def total(self) -> float:
        """Of all windows that were told."""
        return sum(sum(minutes.values()) for minutes in self.minutes.values())

    def of(self, windows: Iterable[Window]) -> float | None:
        """Of these windows; None where one of them was not told."""
        known = [self.minutes.get(window) for window in windows]
        found = [sum(minutes.values()) for minutes in known if minutes is not None]
        return sum(found) if found and len(found) == len(known) else None


def is_share(name: str) -> bool:
    """Whether a metric of this name is shown in percent."""
    return ACCURACY in name.lower()


def cost_per_point(quality: Quality, costs: Mapping[int, float]) -> dict[str, Any] | None:
    """What a point of the metric cost: all of ``costs`` up to the best version, by what was gained until there.

    ``costs`` by version. What was gained is from the version before the first of them to the best of them. None where
    they are not all known, or nothing was gained.
    """
    metric = quality.metric
    if metric is None or not costs:
        return None
    first, before = min(costs), quality.value(min(costs) - 1)
    best = Quality(metric, {version: quality.values.get(version, {}) for version in costs}).best()
    if best is None or before is None:
        return None
    gained = best[1] - before if metric.higher_is_better else before - best[1]
    spent = [costs[version] for version in range(first, best[0] + 1) if version in costs]
    if gained <= 0 or len(spent) != best[0] + 1 - first:
        return None
    point = POINT_OF_A_SHARE if is_share(metric.name) else 1.0
    return {
        "cost": sum(spent) / (gained / point),
        "point": point,
        "gained": gained,
        "first": first,
        "last": best[0],
    }


def spending_document(
    quality: Quality, costs: Costs, windows: Mapping[int, Iterable[Window]]
) -> dict[str, Any] | None:
    """What a run cost: in all, a version, a point. ``windows`` by version. None where nothing was told."""
    if not costs.minutes:
        return None
    found = {version: costs.of(those) for version, those in windows.items()}
    known = {version: cost for version, cost in found.items() if cost is not None}
    return {
        "currency": costs.currency,
        "total": costs.total,
        "per_version": sum(known.values()) / len(known) if known else None,
        "versions": len(known),
        "per_point": cost_per_point(quality, known),
    }


def spending_line(document: Mapping[str, Any] | None, name: str) -> str:
    """``0.0021 EUR in all, 0.00018 EUR a version, 3e-05 EUR for each point of accuracy gained``; "" of nothing."""
    if document is None:
        return ""
    unit, point = document["currency"], document["per_point"]
    parts = [f"{money(document['total'])} {unit} in all"]
    if document["per_version"] is not None:
        parts.append(f"{money(document['per_version'])} {unit} a version")
    if point is not None:
        what = f"point of {name}" if point["point"] == POINT_OF_A_SHARE else f"1 of {name}"
        parts.append(f"{money(point['cost'])} {unit} for each {what} gained")
    return ", ".join(parts)


def money(value: float) -> str:
    """An amount with two digits that say something: ``12.35``, ``0.0021``, ``1.8e-07``."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 1 else f"{value:.2g}"
