"""``constant``: the same rate for ever."""

from __future__ import annotations

from typing import ClassVar

from aggregation.schedules.shape import Schedule, ScheduleParameters


class Constant(Schedule):
    """See the module."""

    name: ClassVar[str] = "constant"

    def rate(self, parameters: ScheduleParameters, learning_rate: float, steps: int) -> float:  # noqa: ARG002 (constant)
        """See ``Schedule``."""
        return learning_rate
