"""The geometric median of vectors that are known by their inner products only: smoothed Weiszfeld steps.

Algorithm 2 of Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation for Federated Learning": the point whose
weighted distances to n vectors are least in sum is brought nearer by weighing each vector by its weight over its
distance. With c the coefficients of the point, h the inner products and p the weights::

    least = 1e-6 √max(0, Σ_b p_b h_bb)      c = p, and so it stays where that is 0
    s_b = Σ_a c_a h_ab      z = Σ_b c_b s_b
    e_b = √max(0, h_bb - 2 s_b + z)
    β_b = p_b / max(least, e_b)      c_b = β_b / Σ β

Rounding can make a square that should be 0 a little less: hence each maximum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from aggregation.merges.shape import Gram, added

SMOOTHING: Final = 1e-6
"""Of the vectors' mean length: nearer than that no vector counts more."""


def median_coefficients(gram: Gram, weights: Sequence[float], iterations: int) -> list[float]:
    """Coefficients, n of them, of the geometric median of n vectors after so many steps.

    ``gram[a][b]`` is the inner product of vectors a and b; ``weights`` come to 1.
    """
    places = range(len(weights))
    least = SMOOTHING * math.sqrt(max(0.0, added(weights[b] * gram[b][b] for b in places)))
    chosen = list(weights)
    if least == 0.0:
        return chosen
    for _ in range(iterations):
        along = [added(chosen[a] * gram[a][b] for a in places) for b in places]
        square = added(chosen[b] * along[b] for b in places)
        apart = [math.sqrt(max(0.0, gram[b][b] - 2.0 * along[b] + square)) for b in places]
        pulled = [weights[b] / max(least, apart[b]) for b in places]
        whole = added(pulled)
        chosen = [one / whole for one in pulled]
    return chosen
