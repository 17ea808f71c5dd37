"""How far a window's sums can reach: clipped, an update moves no weight by more than its own weight times the norm.

Who folds a log need not ask: what comes of it is inside. It is asked of sums that somebody else has signed for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.merges import Bucket
from aggregation.policy.checks import MAGNITUDE_MAX
from aggregation.weights.fixed_point import WEIGHT_FRACTION_BITS

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate

ROUNDED_BITS: Final = 50
"""Norm, clip factor and their product are rounded: a few parts in 2**53, and 2**-50 is more than all of them."""


def sum_bound(policy: Policy, *, accepted: int, weight_total: int, norm_clip: float | None = None) -> int:
    """What no weight's sum is above, in units of 2**-exponent, in a window of so many updates and such a weight.

    ``weight_total`` is in 1/65536. An update's clipped element is at most ``norm_clip``, by default that of the
    weights; its coefficient, or each element, is rounded to a unit: half of one times the largest level.
    """
    clip = policy.updates.norm_clip if norm_clip is None else norm_clip
    clipped = math.ceil(clip * (1 << policy.fixed_point.exponent))
    reach = -((-weight_total * clipped) >> WEIGHT_FRACTION_BITS)
    return reach + (reach >> ROUNDED_BITS) + 1 + accepted * (1 + MAGNITUDE_MAX)


def largest_sum(weights: npt.NDArray[np.int64]) -> int:
    """The largest magnitude among sums of weights."""
    return max(int(weights.max(initial=0)), -int(weights.min(initial=0)))


def beyond_bound(
    one: Aggregate, sums: npt.NDArray[np.int64], policy: Policy, layout: Layout
) -> tuple[int, int] | None:
    """Of the first bucket, or control, whose sums no updates come to: (its largest, the bound). Else None.

    ``sums`` is int64[``layout.sum_elements_of(one.bucket_count)``], of a window that was folded under ``policy``.
    """
    size = layout.trainable.parameters
    for place, said in enumerate(one.buckets or (Bucket(one.accepted, one.weight_total),)):
        reach = largest_sum(sums[place * size : (place + 1) * size])
        bound = sum_bound(policy, accepted=said.accepted, weight_total=said.weight)
        if reach > bound:
            return reach, bound
    control = largest_sum(sums[sums.size - layout.control.parameters :])
    clip = policy.control.norm_clip
    bound = sum_bound(policy, accepted=one.accepted, weight_total=one.weight_total, norm_clip=clip)
    return (control, bound) if control > bound else None
