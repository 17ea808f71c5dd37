"""``step``: the rate is multiplied by a factor every so many versions."""

from __future__ import annotations

from typing import ClassVar, Final

from aggregation.schedules.shape import Schedule, ScheduleParameters

FALLS_MAX: Final = 64
"""So often it falls at most: a rate that goes on falling is no rate any more."""


class Step(Schedule):
    """eta · factor^n with n = steps // versions, at most 64; the power as n products, one after another."""

    name: ClassVar[str] = "step"

    def rate(self, parameters: ScheduleParameters, learning_rate: float, steps: int) -> float:
        """See ``Schedule``."""
        share = 1.0
        for _ in range(min(steps // parameters.versions, FALLS_MAX)):
            share *= parameters.factor
        return learning_rate * share
