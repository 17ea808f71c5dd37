"""Local algorithms: what a device adds to local SGD, as published. A file a member; ``ALGORITHMS`` names them."""

from learning.algorithms.shape import Algorithm, LocalSteps
from learning.algorithms.table import ALGORITHMS, Names, algorithms_named, settings_of

__all__ = ["ALGORITHMS", "Algorithm", "LocalSteps", "Names", "algorithms_named", "settings_of"]
