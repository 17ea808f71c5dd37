"""Whether the histograms of a window can be those of so many accepted updates, whatever its log holds.

Each accepted update stands in at most one bucket of each, and counts ``SHARE_UNIT`` there at most. So there are no more
buckets than updates, and all numbers are small: what is pooled of them fits in a manifest.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from aggregation.defences import Histograms
from aggregation.defences.usual import COSINE_STEPS, SHARE_UNIT, Histogram, share_count

NORM_BUCKETS: Final = range(1 << 14)
"""Where a finite float64 above 0 may lie; so many buckets of norms a manifest has at most."""
COSINE_BUCKETS: Final = range(-COSINE_STEPS, COSINE_STEPS + 1)
SHARE_BUCKETS: Final = range(1, 256)


def histograms_fit(histograms: Histograms | None, accepted: int) -> bool:
    """Whether ``accepted`` updates can have them; None, of records that say none, fits."""
    if histograms is None:
        return True
    shares = histograms.shares
    return (
        _fits(histograms.norms, NORM_BUCKETS, accepted)
        and _fits(histograms.cosines, COSINE_BUCKETS, accepted)
        and _ascends(shares, SHARE_BUCKETS)
        and all(count % share_count(own) == 0 for own, count in shares)
        and sum(count // share_count(own) for own, count in shares) <= accepted
    )


def _fits(histogram: Histogram, buckets: range, accepted: int) -> bool:
    counted = sum(count for _, count in histogram)
    return _ascends(histogram, buckets) and len(histogram) <= accepted and counted <= accepted * SHARE_UNIT


def _ascends(histogram: Histogram, buckets: range) -> bool:
    ascends = all(before < after for (before, _), (after, _) in pairwise(histogram))
    return ascends and all(bucket in buckets and count > 0 for bucket, count in histogram)
