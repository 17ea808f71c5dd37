"""The divisors that there are, by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.families import member_of
from aggregation.weights.divisors.updates import ByUpdates
from aggregation.weights.divisors.weights import ByWeights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.weights.divisors.shape import Divisor

DIVISORS: Final[Mapping[str, Divisor]] = MappingProxyType(
    {divisor.name: divisor for divisor in (ByUpdates(), ByWeights())}
)


def divisor_of(divide_by: str, *, updates: int, weight_total: int) -> float:
    """What a version's weighted sum is divided by; ``UsageProblem`` (FLV-2006) for a divisor that there is none of."""
    return member_of(DIVISORS, divide_by, called="divisor").of(updates, weight_total)
