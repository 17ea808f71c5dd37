"""Drift: whether a number of the versions has begun to rise, for whoever looks on. Nothing is decided by it.

Page-Hinkley's test (E. S. Page, Continuous inspection schemes, 1954; as in Gama et al., A survey on concept drift
adaptation, 2014, section 3.2): m_t = max(0, m_(t-1) + z_t - TOLERANCE), an alarm where m_t > THRESHOLD. z_t is the
number's distance from what it usually is, in usual deviations; mean and variance forget by ``FORGETTING`` a version, as
in Ross et al. 2012, so that a number which falls while the task learns stays usual.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aggregation.defences.usual import median, norm_of_bucket

if TYPE_CHECKING:
    from collections.abc import Collection

    from aggregation.server.aggregates import Aggregate
    from backends.observing.metrics import Metrics

Signal = Literal["update_norm", "metric"]
LEAST: Final = 20
"""Versions that are only learned from, at first and after an alarm."""
FORGETTING: Final = 0.05
TOLERANCE: Final = 0.75
"""Usual deviations by which a version may be above the mean, and count as usual."""
THRESHOLD: Final = 12.0
FURTHEST: Final = 4.0
"""No version counts as further away: one odd version is no drift."""
VALUE_MAX: Final = 1e100
"""Its square is a number still."""
LEAST_DEVIATION: Final = 0.01
"""Of the mean: a number that hardly moves has no deviations to speak of."""


@dataclass(slots=True)
class Drift:
    """The test of one number, of which more is worse. ``statistic`` is m_t / ``THRESHOLD``: an alarm is above 1."""

    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0
    statistic: float = 0.0

    def add(self, value: float) -> bool:
        """Take the next version's number; whether it drifts.

        What is no number, or further from 0 than ``VALUE_MAX``, is passed over.
        """
        if not abs(value) <= VALUE_MAX:  # NaN is not either
            return False
        self.seen += 1
        if self.seen == 1:
            self.mean = value
            return False
        away = value - self.mean
        if self.seen > LEAST:
            deviation = max(math.sqrt(self.variance), LEAST_DEVIATION * abs(self.mean))
            if deviation:  # what is odd moves what is usual no further than it counts
                away = max(-FURTHEST * deviation, min(FURTHEST * deviation, away))
            z = away / deviation if deviation else 0.0
            self.statistic = max(0.0, self.statistic + (z - TOLERANCE) / THRESHOLD)
            if self.statistic > 1.0:
                self.seen, self.mean, self.variance, self.statistic = 1, value, 0.0, 0.0
                return True
        pace = max(FORGETTING, 1.0 / self.seen)
        self.mean += pace * away
        self.variance = (1.0 - pace) * (self.variance + pace * away * away)
        return False


def usual_norm(chosen: Collection[Aggregate]) -> float:
    """The median norm of a version's updates, by the histograms that its windows' workers signed; NaN for none."""
    norms: Counter[int] = Counter()
    for aggregate in chosen:
        if aggregate.histograms is not None:
            norms.update(dict(aggregate.histograms.norms))
    return norm_of_bucket(median(tuple(sorted(norms.items())))) if norms else math.nan


def show_drift(
    metrics: Metrics, signal: Signal, drift: Drift, value: float | None, *, drifted: bool = False
) -> None:
    """Take the newest version's number, unless it was taken, and show what the test says of it."""
    if value is not None:
        drifted = drift.add(value)
    metrics.counter("fluvial_drift_total").labels(signal).inc(drifted)
    metrics.gauge("fluvial_drift_statistic").labels(signal).set(drift.statistic)
