"""Merges: how the buckets of a version become one sum. A file a member; ``MERGES`` names them.

An accepted update is added to one of B sums of its window (``buckets``), so a version comes to B vectors, of which some
may be bad. A member says with which coefficients they are added. It sees their inner products and weights alone, so its
cost is that of one pass over the sums. Pure, as the defences are, and below the policy, which chooses one.
"""

from aggregation.merges.buckets import BUCKETS_MAX, Bucket, bucket_of
from aggregation.merges.shape import BYZANTINE_MAX, ITERATIONS_MAX, Merge, MergeParameters
from aggregation.merges.table import MERGES, merge_named

__all__ = [
    "BUCKETS_MAX",
    "BYZANTINE_MAX",
    "ITERATIONS_MAX",
    "MERGES",
    "Bucket",
    "Merge",
    "MergeParameters",
    "bucket_of",
    "merge_named",
]
