"""Anomaly scores of a well-formed update.

Is its norm far above its peers', does it point against the last step?

* ``norm_deviations`` = (norm - median) / (1.4826 * MAD), over the norms of the partition's last
  ``history_updates`` scored updates (the robust z-score; Rousseeuw and Croux 1993, section 1). Only large
  norms are suspicious: a device that has converged sends small ones.
* ``cosine`` = the similarity with the last global step (the idea of Zeno and of FLTrust, Cao et al. 2021,
  section 4, with the server's own last step in the place of a root data set).

Every scored update enters the history, refused or not, and uses up the device's one contribution for its base
version: so nobody can fill the history, and a real shift of all norms is followed instead of locking everyone
out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.reasons import Because, Reason, because

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aggregation.policy import AnomalyPolicy

MAD_TO_SIGMA: Final = 1.4826
SPREAD_MIN_OF_MEDIAN: Final = 0.1
"""The spread counts as at least this share of the median, so that near-equal norms do not make every other an
outlier."""


@dataclass(frozen=True, slots=True)
class Score:
    """The two scores and what is wrong; ``problem`` is None for an update that may count."""

    norm_deviations: float
    cosine: float
    problem: Because | None


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


def score(policy: AnomalyPolicy, history: NormHistory, norm: float, cosine: float) -> Score:
    """Score one update.

    ``norm`` before clipping, ``cosine`` with the last global step (0.0 if there is none).
    """
    if not policy.enabled:
        return Score(0.0, cosine, None)
    deviations = history.deviations(norm) if len(history) >= policy.history_updates_min else 0.0
    problem = None
    if deviations > policy.norm_deviations_max:
        problem = because(Reason.DEVIATES, norm, deviations, policy.norm_deviations_max)
    elif cosine < policy.cosine_min:
        problem = because(Reason.AGAINST, cosine, policy.cosine_min)
    return Score(deviations, cosine, problem)
