"""What is usual among a task's updates: histograms of integers, pooled over versions, and their medians.

Every window counts its accepted updates' norms, cosines and shares in buckets, each device alike: an update of one of
which ``own`` were accepted of late counts ``SHARE_UNIT`` / own. Under ``BY_SQUARES`` a norm counts by its square
besides (``square_count``): the usual norm is then the one at which half of all squared length is reached, and a crowd
that sends next to nothing has next to no say in it. The merge pools them (``pooled``), the manifest says the pools, and
each barrier carries their medians into every partition: so what is usual is one thing for the whole task, however an
attacker's devices are spread, and a function of the log. There is no float arithmetic but exact products and one
quotient that is rounded once, so that every implementation finds the same buckets and counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import Counter

NORM_SHIFT: Final = 49
"""A norm's bucket is what stands above so many bits of its float64: 8 buckets an octave."""
NORM_BUCKETS: Final = 2047 << (52 - NORM_SHIFT)
"""So many there are of finite norms, from 0 on."""
COSINE_STEPS: Final = 64
"""Buckets of cosines between 0 and 1."""
SHARE_VERSIONS: Final = 8
"""Over so many versions, the current one included, a device's share is counted."""
SCORES_REMEMBERED: Final = 8
"""A device's last scored updates, of which ``defence.quarantine_refusals`` bring it into quarantine."""
SHARE_BUCKETS: Final = 255
"""The largest share that a device's memory can say."""
SHARE_UNIT: Final = 840
"""What a device's accepted updates of ``SHARE_VERSIONS`` versions count together: divisible by 1 to 8."""
POOL_UNIT: Final = 256
"""By which a version's counts are multiplied in a pool, so that a quarter of them is not rounded to nothing."""
POOL_KEPT: Final = (3, 4)
"""What of a pool is left after a version: three quarters, rounded down."""

BY_SQUARES: Final = "squares"
BY_UPDATES: Final = "updates"
"""What an update's norm counts by, beside its device's share: its square, or nothing more."""
LENGTH_PARTS: Final = 8
"""Parts of the norm that an update is clipped to, in which its own is measured."""
SQUARES_MAX: Final = LENGTH_PARTS * LENGTH_PARTS
"""How many times a norm counts at most."""

Histogram = tuple[tuple[int, int], ...]
"""(bucket, count), buckets ascending, no count of 0."""
_FLOAT64: Final = struct.Struct("<d")
_INT64: Final = struct.Struct("<q")
NONE: Final = 0
"""The median of an empty histogram."""


def norm_bucket(norm: float) -> int:
    """The bucket of a norm above 0."""
    bits: int = _INT64.unpack(_FLOAT64.pack(norm))[0]
    return bits >> NORM_SHIFT


def norm_of_bucket(bucket: int) -> float:
    """The norm in the middle of a bucket; 0.0 for ``NONE``."""
    if not bucket:
        return 0.0
    middle: float = _FLOAT64.unpack(_INT64.pack((bucket << NORM_SHIFT) | (1 << (NORM_SHIFT - 1))))[0]
    return middle


def cosine_bucket(cosine: float) -> int:
    """The bucket of a cosine in [-1, 1]: floor(64 · cosine), a product that is exact."""
    return int(COSINE_STEPS * cosine // 1.0)


def share_count(own: int) -> int:
    """What one update counts in a histogram, of a device of which ``own`` were accepted, this one included."""
    return SHARE_UNIT // min(own, SHARE_VERSIONS)


def square_count(norm: float, clip_to: float) -> int:
    """How many times as much as the shortest an update counts by its square, 1 to ``SQUARES_MAX``.

    ``norm`` is before clipping, above 0, and what is above ``clip_to`` does not count. Its ratio is rounded to the
    nearest part, halves up; but for the division all of it is exact.
    """
    if norm >= clip_to:
        return SQUARES_MAX
    parts = max(1, int(LENGTH_PARTS * (norm / clip_to) + 0.5))
    return parts * parts


def median(histogram: Histogram) -> int:
    """The least bucket at which half of all is counted; ``NONE`` where nothing is."""
    half, counted = (sum(count for _, count in histogram) + 1) // 2, 0
    for bucket, count in histogram:
        counted += count
        if counted >= half:
            return bucket
    return NONE


def pooled(before: Histogram, new: Iterable[Histogram]) -> Histogram:
    """The pool after a version: three quarters of what it was, and ``POOL_UNIT`` for each count of the version's."""
    kept, of = POOL_KEPT
    pool = {bucket: kept * count // of for bucket, count in before}
    for histogram in new:
        for bucket, count in histogram:
            pool[bucket] = pool.get(bucket, 0) + POOL_UNIT * count
    return tuple(sorted((bucket, count) for bucket, count in pool.items() if count))


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual, as a barrier says it.

    norm: an L2 norm in model units. cosine: with the guide, in 1/64. share: accepted updates of a device in
    ``SHARE_VERSIONS`` versions. 0: not known.
    """

    norm: float = 0.0
    cosine: int = 0
    share: int = 0


NOT_KNOWN: Final = Usual()
"""Before there was anything."""


@dataclass(frozen=True, slots=True)
class Histograms:
    """A window's histograms, or pools of them."""

    norms: Histogram = ()
    cosines: Histogram = ()
    shares: Histogram = ()

    @property
    def usual(self) -> Usual:
        """Their medians."""
        return Usual(norm_of_bucket(median(self.norms)), max(0, median(self.cosines)), median(self.shares))


@dataclass(slots=True)
class Counting:
    """The histograms of an open window."""

    norms: dict[int, int] = field(default_factory=dict)
    cosines: dict[int, int] = field(default_factory=dict)
    shares: dict[int, int] = field(default_factory=dict)

    def add(self, norm: float, cosine: float | None, own: int | None, squares: int = 1) -> None:
        """Count one accepted update; ``cosine`` is None where there is no guide, ``own`` where no shares are kept.

        ``squares``: how many times its norm counts.
        """
        count = share_count(own or 1)
        if norm > 0.0:
            _add(self.norms, norm_bucket(norm), count * squares)
        if cosine is not None:
            _add(self.cosines, cosine_bucket(cosine), count)
        if own is not None:
            _add(self.shares, own, count)

    def add_all(self, closed: Histograms) -> None:
        """Count what another window has counted."""
        for counts, histogram in (
            (self.norms, closed.norms),
            (self.cosines, closed.cosines),
            (self.shares, closed.shares),
        ):
            for bucket, count in histogram:
                _add(counts, bucket, count)

    def closed(self) -> Histograms:
        """As they go into the aggregate."""
        return Histograms(_sorted(self.norms), _sorted(self.cosines), _sorted(self.shares))


def _add(counts: dict[int, int], bucket: int, count: int) -> None:
    counts[bucket] = counts.get(bucket, 0) + count


def _sorted(counts: Mapping[int, int] | Counter[int]) -> Histogram:
    return tuple(sorted(counts.items()))
