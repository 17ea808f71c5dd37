"""Divisors: what the weighted sum of a version is divided by. A file a member; ``DIVISORS`` names them."""

from aggregation.weights.divisors.shape import Divisor
from aggregation.weights.divisors.table import DIVISORS, divisor_of

__all__ = ["DIVISORS", "Divisor", "divisor_of"]
