"""How far vectors are from each other, by their inner products."""

from __future__ import annotations

from aggregation.merges.shape import Gram


def squared_distances(gram: Gram) -> list[list[float]]:
    """N rows of n: max(0, g_aa + g_bb - 2 g_ab), and 0 from a vector to itself."""
    places = range(len(gram))
    return [
        [0.0 if a == b else max(0.0, gram[a][a] + gram[b][b] - 2.0 * gram[a][b]) for b in places]
        for a in places
    ]
