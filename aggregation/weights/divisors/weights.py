"""``weights``: by the sum of the staleness weights, so that stale updates do not shorten the step."""

from __future__ import annotations

from typing import ClassVar

from aggregation.weights.divisors.shape import Divisor
from aggregation.weights.fixed_point import WEIGHT_ONE


class ByWeights(Divisor):
    """See the module."""

    name: ClassVar[str] = "weights"

    def of(self, updates: int, weight_total: int) -> float:  # noqa: ARG002 (only their weight counts)
        """See ``Divisor``."""
        return weight_total / WEIGHT_ONE
