"""``mixing``: each bucket becomes the mean of its nearest neighbours, then the geometric median of these is taken.

Nearest-neighbour mixing (Allouah et al. 2023, "Fixing by Mixing", algorithm 1) brings honest vectors together that are
far apart because devices' data differ. With f of n buckets bad, N_b are the n - f nearest to b, itself first; of equal
distances the lower place goes first. The mixed vectors' inner products, and their median's coefficients c'::

    h_bc = Σ_{a in N_b} Σ_{e in N_c} g_ae / ((n - f) (n - f))
    c_a = Σ_{b: a in N_b} c'_b / (n - f)

Places ascend in each sum, and the inner one is rounded by itself. Mixed vectors weigh alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from aggregation.merges.distances import squared_distances
from aggregation.merges.medians import median_coefficients
from aggregation.merges.shape import Gram, Merge, MergeParameters, added, tolerated


class Mixing(Merge):
    """See the module."""

    name: ClassVar[str] = "mixing"

    def coefficients(self, parameters: MergeParameters, gram: Gram, weights: Sequence[int]) -> list[float]:
        """See ``Merge``."""
        places = range(len(weights))
        many = len(weights) - tolerated(parameters, len(weights))
        apart = squared_distances(gram)
        near = [_nearest(b, apart[b], many) for b in places]
        within = [[added(gram[a][e] for e in near[c]) for c in places] for a in places]
        square = float(many * many)
        mixed = [[added(within[a][c] for a in near[b]) / square for c in places] for b in places]
        alike = [1.0 / float(len(weights))] * len(weights)
        chosen = median_coefficients(mixed, alike, parameters.iterations)
        return [added(chosen[b] / float(many) for b in places if a in near[b]) for a in places]


def _nearest(place: int, apart: Sequence[float], many: int) -> list[int]:
    """The places of the ``many`` that are nearest, ascending; its own among them."""
    others = sorted((a for a in range(len(apart)) if a != place), key=lambda a: (apart[a], a))
    return sorted([place, *others[: many - 1]])
