"""The one shape of a divisor: what a version's weighted sum is divided by to be its mean delta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Divisor(ABC):
    """One divisor, above 0 for every version that holds an update."""

    name: ClassVar[str]

    @abstractmethod
    def of(self, updates: int, weight_total: int) -> float:
        """The divisor of a version of so many updates, whose staleness weights add up to ``weight_total``/65536."""
