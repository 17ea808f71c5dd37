"""Staleness weights: a file a kind; ``STALENESS_KINDS`` names them."""

from aggregation.weights.fixed_point import WEIGHT_ONE
from aggregation.weights.staleness.shape import StalenessKind, StalenessParameters
from aggregation.weights.staleness.table import STALENESS_KINDS, staleness_weights

__all__ = ["STALENESS_KINDS", "WEIGHT_ONE", "StalenessKind", "StalenessParameters", "staleness_weights"]
