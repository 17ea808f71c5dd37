"""``krum``: the mean of the buckets that have near neighbours (Multi-Krum: Blanchard et al. 2017, section 4).

The score of one of n buckets is the sum of its squared distances to the n - f - 2 nearest others, f of n being bad. The
n - f of the least scores are kept, and count by their weights; of equal scores the lower place goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from aggregation.merges.distances import squared_distances
from aggregation.merges.shape import Gram, Merge, MergeParameters, added, tolerated

NOT_NEAR: Final = 2
"""A bucket itself, and one honest one more."""


class Krum(Merge):
    """See the module."""

    name: ClassVar[str] = "krum"

    def coefficients(self, parameters: MergeParameters, gram: Gram, weights: Sequence[int]) -> list[float]:
        """See ``Merge``."""
        places = range(len(weights))
        bad, apart = tolerated(parameters, len(weights)), squared_distances(gram)
        near = len(weights) - bad - NOT_NEAR
        scores = [added(sorted(apart[b][a] for a in places if a != b)[:near]) for b in places]
        kept = set(sorted(places, key=lambda b: (scores[b], b))[: len(weights) - bad])
        whole = float(sum(weights[b] for b in kept))
        return [float(weights[b]) / whole if b in kept else 0.0 for b in places]
