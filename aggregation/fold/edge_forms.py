"""What no log can come to: the form and the length of an edge's window, by what so many of its devices could have sent.

Exact integers throughout, so that whoever asks gets one answer.
"""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.codecs.values import LARGEST_UNITS, joined
from aggregation.defences.usual import (
    BY_SQUARES,
    COSINE_STEPS,
    NORM_BUCKETS,
    SHARE_BUCKETS,
    SHARE_UNIT,
    SQUARES_MAX,
    share_count,
)
from aggregation.fold.rejections import ACCEPTED, AGGREGATED
from aggregation.fold.state import LIVE_MAX
from aggregation.layout import CONTROL, VALUE_DIGITS, WEIGHTS
from aggregation.policy.reach import clipped_units, reach_of, weight_bound
from aggregation.weights.fixed_point import WEIGHT_ONE

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.defences.usual import Histogram
    from aggregation.fold.events import EdgeWindow
    from aggregation.fold.state import PartitionState
    from aggregation.layout import Layout
    from aggregation.policy import Policy

LEAST_COUNT: Final = share_count(SHARE_BUCKETS)
"""What an update counts in a histogram at least."""
DIGIT_BITS: Final = 32
"""Of one of a buffer's digits that an update adds."""
SIGNIFICANT_BITS: Final = 24
"""Of the largest sum that are squared; the rest is rounded down."""


def wrong_form(window: EdgeWindow, state: PartitionState) -> str:
    """Which of its totals cannot be, in one word; "" where all may. ``state`` is of the log above."""
    policy = state.policy
    if not _counts_fit(window):
        return "counts"
    if not _bases_fit(window, state):
        return "bases"
    if not _staleness_fits(window):
        return "staleness"
    if window.buckets != ((window.accepted, window.weight_total),):
        return "buckets"
    return "" if _histograms_fit(window, policy) else "histograms"


def _counts_fit(window: EdgeWindow) -> bool:
    totals = (
        window.accepted,
        window.weight_total,
        window.staleness_total,
        window.staleness_max,
        window.update_bytes,
    )
    if min(*totals, *window.counts.values()) < 0:
        return False
    own = window.counts.get(ACCEPTED, 0)
    return window.accepted == own or (window.accepted > own and window.counts.get(AGGREGATED, 0) > 0)


def _bases_fit(window: EdgeWindow, state: PartitionState) -> bool:
    """Bases that the log above would take of a device, or would have when its edges folded them.

    One update at its limit, in a window that comes late, should not cost the whole window: so there is room of
    ``staleness.versions_max`` below the oldest base that is welcome, and none below the floor of a rollback.
    """
    said, weights, below = window.bases, state.policy.staleness.weights, window.counts.get(AGGREGATED, 0) > 0
    oldest = max(
        state.floor, state.oldest_base - state.policy.staleness.versions_max, state.version - LIVE_MAX
    )

    def most(base: int) -> int:
        """What an update of that base weighs at most where it was folded; what comes of edges is weighed twice."""
        return WEIGHT_ONE if below else weights[min(window.version - base, len(weights) - 1)]

    return (
        all(earlier.base < later.base for earlier, later in pairwise(said))
        and all(oldest <= one.base <= window.version for one in said)
        and all(one.accepted >= 1 and 1 <= one.weight <= one.accepted * most(one.base) for one in said)
        and sum(one.accepted for one in said) == window.accepted
        and sum(one.weight for one in said) == window.weight_total
    )


def _staleness_fits(window: EdgeWindow) -> bool:
    total = sum(one.accepted * (window.version - one.base) for one in window.bases)
    most = max((window.version - one.base for one in window.bases), default=0)
    return (window.staleness_total, window.staleness_max) == (total, most)


def _histograms_fit(window: EdgeWindow, policy: Policy) -> bool:
    squares = SQUARES_MAX if policy.defence.usual_norm_by == BY_SQUARES else 1
    said, accepted = window.histograms, window.accepted
    counted = sum(count for _, count in said.shares) if policy.shares.per_version else SHARE_UNIT * accepted
    return (
        _ascends(said.shares, 1, SHARE_BUCKETS, accepted)
        and (_shares_fit(said.shares, accepted) if policy.shares.per_version else not said.shares)
        and _fits(said.norms, 0, NORM_BUCKETS - 1, accepted, counted * squares)
        and _fits(said.cosines, -COSINE_STEPS, COSINE_STEPS, accepted, counted)
    )


def _shares_fit(shares: Histogram, accepted: int) -> bool:
    """Whether each of so many updates counts once, by its device's share."""
    return (
        all(count % share_count(own) == 0 for own, count in shares)
        and sum(count // share_count(own) for own, count in shares) == accepted
    )


def _ascends(histogram: Histogram, least: int, most: int, entries: int) -> bool:
    buckets = [bucket for bucket, _ in histogram]
    return (
        len(histogram) <= entries
        and all(earlier < later for earlier, later in pairwise(buckets))
        and all(least <= bucket <= most for bucket in buckets)
        and all(count >= LEAST_COUNT for _, count in histogram)
    )


def _fits(histogram: Histogram, least: int, most: int, entries: int, counted: int) -> bool:
    total = sum(count for _, count in histogram)
    return _ascends(histogram, least, most, entries) and total <= counted


def wrong_sums(sums: npt.NDArray[np.int64], window: EdgeWindow, layout: Layout) -> str:
    """What is wrong with the number of its sums or those of its buffers, in one word; "" where nothing is."""
    if sums.size != layout.sum_elements:
        return "elements"
    weights = layout.trainable.parameters
    digits = sums[weights : weights + VALUE_DIGITS * layout.buffers.parameters]
    return "" if _buffers_fit(digits, window, layout.buffers) else "buffers"


def _buffers_fit(digits: npt.NDArray[np.int64], window: EdgeWindow, buffers: Layout) -> bool:
    if not digits.size:
        return True
    most, furthest = window.accepted << DIGIT_BITS, window.weight_total * LARGEST_UNITS
    if int(digits.max()) > most or int(digits.min()) < -most:
        return False
    rows = digits.reshape(-1, VALUE_DIGITS).tolist()
    for t, spec in enumerate(buffers.tensors):
        least = 0 if spec.nonnegative else -furthest
        for row in rows[int(buffers.starts[t]) : int(buffers.starts[t + 1])]:
            if not least <= joined(row) <= furthest:
                return False
    return True


def is_beyond(sums: npt.NDArray[np.int64], window: EdgeWindow, layout: Layout, policy: Policy) -> str:
    """The section of whose sums so many clipped updates of that weight cannot make one so long; "" where they can."""
    exponent, first = policy.fixed_point.exponent, sums.size - layout.control.parameters
    weights, control = sums[: layout.trainable.parameters], sums[first:]
    if is_longer(weights, window, clipped_units(policy.updates.norm_clip, exponent)):
        return WEIGHTS
    if control.size and is_longer(control, window, clipped_units(policy.control.norm_clip, exponent)):
        return CONTROL
    return ""


def is_longer(sums: npt.NDArray[np.int64], window: EdgeWindow, clipped: int) -> bool:
    """Whether ``sums`` int64[P], P above 0, have an element or an L2 norm that the window's updates cannot come to.

    ``clipped`` is the norm that an update has at most, in units of 2**-exponent. With t = sums / 2**k, rounded down, of
    at most 24 bits: Σ t² 4**k against the square of a bound that has room for what is rounded, in updates and in t.
    """
    weighs = weight_bound(window.accepted, window.weight_total)
    largest = max(int(sums.max()), -int(sums.min()))
    if largest > reach_of(clipped, accepted=window.accepted, weight_total=weighs):
        return True
    root = isqrt(sums.size) + 1
    shift = max(0, largest.bit_length() - SIGNIFICANT_BITS)
    bound = reach_of(clipped, accepted=window.accepted * root, weight_total=weighs) + (root << shift)
    return squares_of(sums >> shift) << 2 * shift > bound * bound


def squares_of(rounded: npt.NDArray[np.int64]) -> int:
    """Σ t², exactly, of |t| of at most 2**24; a block of 2**14 at a time stays within int64."""
    block = 1 << 14
    return sum(
        int(np.dot(rounded[begin : begin + block], rounded[begin : begin + block]))
        for begin in range(0, rounded.size, block)
    )
