"""Whether a window's sums in the policy's buckets can be kept: in a worker's memory, and in the store at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.merges import merge_named
from aggregation.policy.checks import refused
from backends.object_limits import SUMS_BYTES_MAX
from schemas.checkpoints import sums_bytes

if TYPE_CHECKING:
    from aggregation.layout import Layout
    from aggregation.policy import Policy


def check_window_size(layout: Layout, policy: Policy) -> None:
    """Refuse buckets whose sums nobody could store or read: UsageProblem FLV-2002, with how many there may be.

    One bucket is never refused: what its sums are follows from the model alone.
    """
    buckets = policy.merge.buckets
    needed = sums_bytes(layout, buckets)
    if buckets == 1 or needed <= SUMS_BYTES_MAX:
        return
    each, values = sums_bytes(layout, 1) - sums_bytes(layout, 0), sums_bytes(layout, 0)
    most = (SUMS_BYTES_MAX - values) // each
    bound = (
        f"at most {most}" if most >= merge_named(policy.merge.kind).buckets_min else '1, with kind = "mean"'
    )
    weights = layout.trainable.parameters
    raise refused(
        "merge.buckets",
        buckets,
        f"{bound}, where a model has {weights} weights: a window's sums take 8 bytes a weight in each bucket, "
        f"{needed} in all, and may take {SUMS_BYTES_MAX}",
    )
