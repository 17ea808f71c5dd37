"""``geometric_median`` (RFA): the point that is nearest to all buckets' means at once, each by its weight.

Less than half of the weight cannot move it far (Pillutla, Kakade and Harchaoui 2022, section 3). See ``medians``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from aggregation.merges.medians import median_coefficients
from aggregation.merges.shape import Gram, Merge, MergeParameters, shares_of


class GeometricMedian(Merge):
    """See the module."""

    name: ClassVar[str] = "geometric_median"

    def coefficients(self, parameters: MergeParameters, gram: Gram, weights: Sequence[int]) -> list[float]:
        """See ``Merge``."""
        return median_coefficients(gram, shares_of(weights), parameters.iterations)
