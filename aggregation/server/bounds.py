"""How far a window's sums can reach: clipped, an update moves no weight by more than its own weight times the norm.

Who folds a log need not ask: what comes of it is inside. It is asked of sums that somebody else has signed for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aggregation.merges import Bucket
from aggregation.policy.reach import clipped_units, reach_of, weight_bound

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate


def sum_bound(policy: Policy, *, accepted: int, weight_total: int, norm_clip: float | None = None) -> int:
    """What no weight's sum is above, in units of 2**-exponent, in a window of so many updates and such a weight.

    ``weight_total`` is in 1/65536. ``norm_clip`` is by default that of the weights. Under a policy with edges some of
    the weight may have been rounded, see ``weight_bound``.
    """
    clip = policy.updates.norm_clip if norm_clip is None else norm_clip
    weighs = weight_bound(accepted, weight_total) if policy.knows_edges else weight_total
    return reach_of(clipped_units(clip, policy.fixed_point.exponent), accepted=accepted, weight_total=weighs)


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
