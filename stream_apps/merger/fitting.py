"""Whether the histograms of a window can be those of so many accepted updates, whatever its log holds.

Each accepted update stands in one bucket of the shares, where the policy counts them, and in at most one of each other,
and counts the same in all; but for its norm, which since ``fluvial/policy/v4`` may count by its square. So there are no
more buckets than updates, and all numbers are small: what is pooled of them fits in a manifest.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from aggregation.defences import Histograms
from aggregation.defences.usual import COSINE_STEPS, SHARE_UNIT, SQUARES_MAX, Histogram, share_count

NORM_BUCKETS: Final = range(2047 << 3)
"""Where a finite float64 above 0 may lie; so many buckets of norms a manifest has at most."""
COSINE_BUCKETS: Final = range(-COSINE_STEPS, COSINE_STEPS + 1)
SHARE_BUCKETS: Final = range(1, 256)
LEAST_COUNT: Final = share_count(SHARE_BUCKETS[-1])
"""What an update counts at least."""


def histograms_fit(histograms: Histograms | None, accepted: int, *, by_squares: bool = False) -> bool:
    """Whether ``accepted`` updates can have them; None, of records that say none, fits.

    ``by_squares``: whether norms may count by their squares.
    """
    if histograms is None:
        return True
    shares = histograms.shares
    # Under a policy that counts no shares each update counts whole, and no share is said.
    counted = sum(count for _, count in shares) if shares else SHARE_UNIT * accepted
    return (
        _fits(shares, SHARE_BUCKETS, counted)
        and all(count % share_count(own) == 0 for own, count in shares)
        and sum(count // share_count(own) for own, count in shares) <= accepted
        and _fits(histograms.norms, NORM_BUCKETS, counted * (SQUARES_MAX if by_squares else 1))
        and _fits(histograms.cosines, COSINE_BUCKETS, counted)
    )


def _fits(histogram: Histogram, buckets: range, counted: int) -> bool:
    """Whether the buckets ascend, each counts an update, and all of them no more than ``counted`` together."""
    ascends = all(before < after for (before, _), (after, _) in pairwise(histogram))
    counts = all(bucket in buckets and count >= LEAST_COUNT for bucket, count in histogram)
    return ascends and counts and sum(count for _, count in histogram) <= counted
