"""From a version's buckets to the one sum that its step is made of, by the policy's merge (ADR 47).

With T_b the exact sums of bucket b, int64[W], w_b what its updates weigh after lateness, W their sum, and c_b the
coefficients that the merge gives to the buckets' means::

    g_ab = Σ_i T_a,i T_b,i / (w_a w_b)
    T_i = rint(Σ_b (c_b W / w_b) T_b,i)

all in float64, each operation rounded once, sums in the written order, b ascending. A bucket of no weight is left out.
So T is to the merge's mean what the plain sum is to the plain one: it is divided, turned and stepped in the same way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.merges import merge_named
from aggregation.merges.shape import BUCKETS_MIN
from aggregation.server.cone import SUM_MAX
from aggregation.server.totals import Total, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.merges.shape import Gram
    from aggregation.policy import MergePolicy

TILE: Final = 4
"""Rows and columns of a Gram matrix are made in tiles of so many."""


def one_of(total: Total, weights: int, rules: MergePolicy) -> npt.NDArray[np.int64]:
    """The sums int64[``weights``] that a version's step is made of; see ``factors_of``."""
    from aggregation.server import kernels

    rows, factors = total.rows(weights), factors_of(total, weights, rules)
    if factors is None:
        return summed(rows)
    made = np.empty(weights, dtype=np.int64)
    places = np.array(list(factors), dtype=np.int64)
    kernels.combine_into(made, rows, places, np.array(list(factors.values()), dtype=np.float64), SUM_MAX)
    return made


def factors_of(total: Total, weights: int, rules: MergePolicy) -> dict[int, float] | None:
    """What each bucket that holds anything is multiplied by, c_b W / w_b, by its place, ascending.

    None where buckets are simply added: the merge is not robust, or fewer than three hold anything.
    """
    merge = merge_named(rules.kind)
    present = [place for place, weight in enumerate(total.bucket_weights) if weight > 0]
    if not merge.robust or len(present) < BUCKETS_MIN:
        return None
    weighs = [total.bucket_weights[place] for place in present]
    chosen = merge.coefficients(rules, gram_of(total.rows(weights), present, weighs), weighs)
    whole = float(sum(weighs))
    factors = [each * whole / float(weight) for each, weight in zip(chosen, weighs, strict=True)]
    if not all(map(math.isfinite, factors)):
        raise IntegrityProblem(
            "FLV-3004", f"the merge {rules.kind!r} gives coefficients that are no numbers: {factors}"
        )
    return dict(zip(present, factors, strict=True))


def gram_of(rows: npt.NDArray[np.int64], present: Sequence[int], weighs: Sequence[int]) -> Gram:
    """Inner products of the buckets' means: n rows of n. ``rows`` int64[B, W]; ``present`` and ``weighs`` have n."""
    from aggregation.server import kernels

    many = len(present)
    tiles = -(-many // TILE) * TILE
    products = np.zeros((tiles, tiles), dtype=np.float64)
    kernels.gram_into(products, rows, np.array(present, dtype=np.int64))
    scales = [float(weight) for weight in weighs]
    return [[float(products[a, b]) / (scales[a] * scales[b]) for b in range(many)] for a in range(many)]
