"""The one shape of a schedule: the rate after so many steps.

Binary64, each operation rounded by itself in the written order: only + - * /, each correctly rounded by IEEE 754, so
any machine gets the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol


class ScheduleParameters(Protocol):
    """What a policy says of the schedule; each member reads what it needs."""

    @property
    def kind(self) -> str:
        """The member's name."""
        ...

    @property
    def versions(self) -> int:
        """For ``step``: so many versions keep a rate. For ``cosine``: after so many the lowest is reached."""
        ...

    @property
    def factor(self) -> float:
        """For ``step``: what each step multiplies the rate by. For ``cosine``: the lowest share of the rate."""
        ...

    @property
    def warmup_versions(self) -> int:
        """For so many versions the rate rises evenly to its full height, whatever the schedule."""
        ...


class Schedule(ABC):
    """One schedule. Pure: the same arguments give the same bits everywhere."""

    name: ClassVar[str]

    @abstractmethod
    def rate(self, parameters: ScheduleParameters, learning_rate: float, steps: int) -> float:
        """The rate of the step after ``steps``, 0 or more, since the warm-up; ``learning_rate`` is the full one."""
