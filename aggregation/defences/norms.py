"""The norms of a partition's last scored updates, and how far one is from them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAD_TO_SIGMA: Final = 1.4826
SPREAD_MIN_OF_MEDIAN: Final = 0.1
"""The spread counts as at least this share of the median, so that near-equal norms do not make every other an
outlier."""


class NormHistory:
    """The norms of the last scored updates of a partition, oldest first; none of them is NaN.

    They are kept in ascending order besides, so that a score takes two searches and no sorting.
    """

    __slots__ = ("_norms", "_ordered")

    def __init__(self, norms: Iterable[float] = ()) -> None:
        self._norms: deque[float] = deque(norms)
        self._ordered = sorted(self._norms)

    def __len__(self) -> int:
        return len(self._norms)

    def values(self) -> list[float]:
        """The norms, oldest first."""
        return list(self._norms)

    def append(self, norm: float, length_max: int) -> None:
        """Add a norm and forget the oldest beyond ``length_max``."""
        self._norms.append(norm)
        insort(self._ordered, norm)
        while len(self._norms) > length_max:
            del self._ordered[bisect_left(self._ordered, self._norms.popleft())]

    def deviations(self, norm: float) -> float:
        """The robust z-score of ``norm``; 0.0 where the history says nothing (all zeros)."""
        ordered = self._ordered
        median = ordered[len(ordered) // 2]
        spread = max(MAD_TO_SIGMA * _mad(ordered), SPREAD_MIN_OF_MEDIAN * median)
        return (norm - median) / spread if spread > 0.0 else 0.0


def _mad(ordered: Sequence[float]) -> float:
    """The median of the distances from the median, each median the upper of the middle two.

    The ``middle`` + 1 norms that are nearest to the median stand side by side, from some ``low`` to ``low + middle``,
    and the farther of these two is at the distance that is sought. As ``low`` rises, the lower one comes nearer and the
    upper one goes away, also where differences are rounded: it is where the upper one overtakes, or the one before.
    """
    middle = len(ordered) // 2
    median, low, high = ordered[middle], 0, len(ordered) - middle
    while low < high:
        half = (low + high) // 2
        if ordered[half + middle] - median >= median - ordered[half]:
            high = half
        else:
            low = half + 1
    ends = [ordered[low + middle] - median] if low + middle < len(ordered) else []
    if low:
        ends.append(median - ordered[low - 1])
    return min(ends)
