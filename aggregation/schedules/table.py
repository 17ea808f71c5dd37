"""The schedules that there are, by name, and the warm-up that they share."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.families import member_of
from aggregation.schedules.constant import Constant
from aggregation.schedules.cosine import Cosine
from aggregation.schedules.step import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.schedules.shape import Schedule, ScheduleParameters

SCHEDULES: Final[Mapping[str, Schedule]] = MappingProxyType(
    {schedule.name: schedule for schedule in (Constant(), Step(), Cosine())}
)


def schedule_named(name: str) -> Schedule:
    """The schedule of this name; ``UsageProblem`` (FLV-2006) where there is none."""
    return member_of(SCHEDULES, name, called="schedule")


def rate_after(steps: int, learning_rate: float, parameters: ScheduleParameters) -> float:
    """The rate of the step after ``steps`` steps, 0 or more: warm-up first, then the schedule that is named.

    In the warm-up it is learning_rate · ((steps + 1) / warmup_versions); the schedule begins behind it.
    """
    warming = parameters.warmup_versions
    if steps < warming:
        return learning_rate * (float(steps + 1) / float(warming))
    return schedule_named(parameters.kind).rate(parameters, learning_rate, steps - warming)
