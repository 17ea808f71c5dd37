"""``updates``: by the number of updates, however stale (FedBuff, Nguyen et al. 2022, algorithm 1, line 10)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.weights.divisors.shape import Divisor


class ByUpdates(Divisor):
    """See the module."""

    name: ClassVar[str] = "updates"

    def of(self, updates: int, weight_total: int) -> float:  # noqa: ARG002 (it counts heads)
        """See ``Divisor``."""
        return float(updates)
