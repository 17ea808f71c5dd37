"""How good the followed versions of a task are, in its own metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluvial.reading.quality import Quality, in_digits
from fluvial.reading.spending import is_share
from schemas.task_metric import LOSS, metric_of, way_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from fluvial.console.recent import Recent
    from schemas.manifests import Genesis, Metric


def quality_seen(genesis: Genesis | None, recent: Recent) -> Quality:
    """Of the versions whose evaluations were followed; under ``recent.lock``."""
    values = dict(recent.own.items())
    declared = None if genesis is None else genesis.metric
    newest = values[max(values)] if values else None
    return Quality(declared or recent.named or metric_of(None, newest), values)


def metric_document(quality: Quality) -> dict[str, Any] | None:
    """The metric, and the best version in it; None while nothing is known."""
    if quality.metric is None:
        return None
    best = quality.best()
    return {
        "name": quality.metric.name,
        "better": way_of(quality.metric),
        "best": None if best is None else {"version": best[0], "value": best[1]},
    }


def names_shown(quality: Quality) -> list[str]:
    """The metric and the loss, if the task reports them."""
    return [name for name in quality.names if name in {quality.name, LOSS}]


def curve_points(
    quality: Quality, names: Collection[str], points: int
) -> tuple[list[dict[str, Any]], int, int]:
    """(points ascending, of how many, every how manieth): thinned to at most ``points``, the newest always there.

    The best version is there as well, so that a chart can mark it.
    """
    versions = sorted(version for version in quality.values if version > 0)
    every = max(1, -(-len(versions) // points))
    kept = set(versions[::-1][::every])
    best = quality.best()
    if best is not None and best[0] > 0:
        kept.add(best[0])
    shown = [
        {"version": version} | {name: quality.values[version].get(name) for name in names}
        for version in sorted(kept)
    ]
    return shown, len(versions), every


def change_of(quality: Quality, version: int) -> float | None:
    """By how much the metric differs from the version before; None where one of the two is not known."""
    now, before = quality.value(version), quality.value(version - 1)
    return None if now is None or before is None else now - before


def in_words(metric: Metric, value: float) -> str:
    """What a version reached: ``accuracy 93.1 %``, ``r2 0.9312``."""
    shown = f"{100 * value:.1f} %" if is_share(metric.name) and 0 <= value <= 1 else in_digits(value)
    return f"{metric.name} {shown}"
