"""How far sums can reach: clipped, an update moves no element by more than its own weight times the norm."""

from __future__ import annotations

import math
from typing import Final

from aggregation.policy.checks import MAGNITUDE_MAX
from aggregation.weights.fixed_point import WEIGHT_FRACTION_BITS

EDGE_LEVELS: Final = 8
"""Units of 1/65536 that an update's weight may have lost by rounding, a half at every level of edges."""
ROUNDED_BITS: Final = 50
"""Norm, clip factor and their product are rounded: a few parts in 2**53, and 2**-50 is more than all of them."""


def clipped_units(norm_clip: float, exponent: int) -> int:
    """The norm that updates are clipped to, in units of 2**-exponent, rounded up."""
    return math.ceil(norm_clip * (1 << exponent))


def weight_bound(accepted: int, weight_total: int) -> int:
    """What so many updates weighed at most before their weights were rounded, of windows that an edge published late.

    An update weighs at most 1, and each level above it rounds the weight of a base by half a unit.
    """
    return min(weight_total + EDGE_LEVELS * accepted, accepted << WEIGHT_FRACTION_BITS)


def reach_of(clipped: int, *, accepted: int, weight_total: int) -> int:
    """What no sum is above of so many updates and such a weight (in 1/65536); see ``clipped_units``.

    An update's clipped element is at most the norm; its coefficient, or each element, is rounded to a unit: half of one
    times the largest level.
    """
    reach = -((-weight_total * clipped) >> WEIGHT_FRACTION_BITS)
    return reach + (reach >> ROUNDED_BITS) + 1 + accepted * (1 + MAGNITUDE_MAX)
