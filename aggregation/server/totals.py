"""The exact sum of a version's windows, bucket by bucket.

Adding windows is adding int64, so any grouping gives the same bits. A window that comes late weighs less, see
``lateness``: its sums of the weights and control variates are scaled before they are added, element by element to the
nearest integer; the exact sums of its buffers are not, but count so many times. Windows of one version may have been
folded under two policies; where they have not all as many buckets, the version has one: each bucket of a window is
added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.merges import Bucket
from aggregation.optimizers import read_only
from aggregation.policy import SUM_LIMIT
from aggregation.weights.fixed_point import WEIGHT_ONE, weight_after

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregation.server.aggregates import Aggregate


@dataclass(frozen=True, slots=True)
class WindowSums:
    """One window as it is merged: its sums, its updates' weight, what lateness leaves of it, and its buckets.

    ``sums`` is int64[``layout.sum_elements_of(buckets)``], of one bucket where ``buckets`` is (). Both weights are in
    units of 1/65536; ``weight`` is 1 to 65536. ``weight_total`` counts where a window is late, ``buckets`` where there
    are several.
    """

    sums: npt.NDArray[np.int64]
    weight_total: int = 0
    weight: int = WEIGHT_ONE
    buckets: tuple[Bucket, ...] = ()

    @classmethod
    def of(cls, sums: npt.NDArray[np.int64], window: Aggregate, weight: int) -> WindowSums:
        """A window's sums, with what its record says of them and what lateness leaves of it."""
        return cls(sums, window.weight_total, weight, window.buckets)

    @property
    def bucket_weights(self) -> list[int]:
        """What each bucket's updates weigh after lateness, in units of 1/65536."""
        said = [one.weight for one in self.buckets] or [self.weight_total]
        return [weight_after(one, self.weight) for one in said]


@dataclass(slots=True)
class Total:
    """The exact sum of a version's windows.

    ``sums`` int64[``layout.sum_elements_of(buckets)``]: of the weights all windows, after lateness, bucket by bucket;
    of the buffers those that are not late, whose updates weigh ``whole_weight``. ``late`` has the others' buffers,
    int64[10·B] as they were folded, with their updates' weight, by what lateness leaves of them. ``bucket_weights``:
    what each bucket's updates weigh after lateness; [] before any window. ``control``: how many of the last sums are
    control variates', of all windows, after lateness.
    """

    sums: npt.NDArray[np.int64]
    whole_weight: int = 0
    late: dict[int, tuple[npt.NDArray[np.int64], int]] = field(default_factory=dict)
    bucket_weights: list[int] = field(default_factory=list)
    control: int = 0

    @property
    def buckets(self) -> int:
        """How many the weights' sums stand in."""
        return max(1, len(self.bucket_weights))

    def values(self, weight_total: int, weights: int) -> list[tuple[npt.NDArray[np.int64], int, int]]:
        """The buffers' sums as ``mean_of_groups`` wants them; a bucket has ``weights`` elements."""
        values = self.sums[self.buckets * weights : self.sums.size - self.control]
        if not self.late:
            return [(values, weight_total, 1)]
        groups = [(values, self.whole_weight, WEIGHT_ONE)]
        return groups + [(digits, of, weight) for weight, (digits, of) in sorted(self.late.items())]

    @property
    def control_sums(self) -> npt.NDArray[np.int64]:
        """The control variates' sums, int64[C]."""
        return self.sums[self.sums.size - self.control :]

    def rows(self, weights: int) -> npt.NDArray[np.int64]:
        """The weights' sums by bucket, int64[buckets, ``weights``]."""
        return self.sums[: self.buckets * weights].reshape(self.buckets, weights)


def add_sums(sums: Iterable[npt.NDArray[np.int64]], elements: int) -> npt.NDArray[np.int64]:
    """The exact sum of windows' sums of which none is late, int64[``layout.sum_elements``]; see ``add_windows``."""
    return add_windows(map(WindowSums, sums), weights=elements, elements=elements).sums


def add_windows(windows: Iterable[WindowSums], *, weights: int, elements: int, control: int = 0) -> Total:
    """The exact sum of windows' sums, taken one at a time.

    In one bucket they are ``elements`` int64 each, the first ``weights`` of which are the weights', and the last
    ``control`` the control variates'.

    No policy lets a version overflow, but one version may hold windows of two policies: so the bound is
    looked at again here. ``IntegrityProblem`` (FLV-3004) where the largest magnitudes of the windows could
    leave int64.
    """
    total = Total(np.zeros(elements, dtype=np.int64), control=control)
    reach = 0
    for one in windows:
        total = _made_for(total, one, weights)
        reach += _add(total, one, weights)
        if reach > SUM_LIMIT:  # total may have wrapped around: nobody sees it
            raise IntegrityProblem(
                "FLV-3004", f"the sums of a version reach {reach:.3e}, the bound is {SUM_LIMIT:.3e}"
            )
    return total


def summed(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The exact sum of buckets, int64[W] of int64[B, W]; the very same array of one."""
    from aggregation.server import kernels

    if rows.shape[0] == 1:
        return rows.reshape(-1)
    total = np.zeros(rows.shape[1], dtype=np.int64)
    for row in rows:
        kernels.add_into(total, read_only(row))
    return total


def _made_for(total: Total, one: WindowSums, weights: int) -> Total:
    """The total to which a window can be added: of as many buckets where all have as many, else of one."""
    many = max(1, len(one.buckets))
    if not total.bucket_weights:
        values = total.sums.size - weights
        sums = np.zeros(many * weights + values, dtype=np.int64)
        return Total(sums, bucket_weights=[0] * many, control=total.control)
    if total.buckets in {1, many}:
        return total
    whole = np.concatenate([summed(total.rows(weights)), total.sums[total.buckets * weights :]])
    return Total(whole, total.whole_weight, total.late, [sum(total.bucket_weights)], total.control)


def _add(total: Total, one: WindowSums, weights: int) -> int:
    """Add a window; the largest magnitude of what was added, that of buckets added up."""
    from aggregation.server import kernels

    sums, many, reach = read_only(one.sums), max(1, len(one.buckets)), 0
    for bucket in range(many):
        begin = bucket * weights if total.buckets > 1 else 0
        into, row = total.sums[begin : begin + weights], sums[bucket * weights : (bucket + 1) * weights]
        whole = one.weight == WEIGHT_ONE
        low, high = kernels.add_into(into, row) if whole else kernels.add_late_into(into, row, one.weight)
        reach += max(int(high), -int(low))
    for bucket, weight in enumerate(one.bucket_weights):
        total.bucket_weights[bucket if total.buckets > 1 else 0] += weight
    return max(reach, _add_values(total, one, weights), _add_control(total, one))


def _add_control(total: Total, one: WindowSums) -> int:
    from aggregation.server import kernels

    if not total.control:
        return 0
    into, sums = total.control_sums, read_only(one.sums)[one.sums.size - total.control :]
    whole = one.weight == WEIGHT_ONE
    low, high = kernels.add_into(into, sums) if whole else kernels.add_late_into(into, sums, one.weight)
    return max(int(high), -int(low))


def _add_values(total: Total, one: WindowSums, weights: int) -> int:
    from aggregation.server import kernels

    values = read_only(one.sums)[max(1, len(one.buckets)) * weights : one.sums.size - total.control]
    if one.weight == WEIGHT_ONE:
        digits = total.sums[total.buckets * weights : total.sums.size - total.control]
        total.whole_weight += one.weight_total
    else:
        digits, of = total.late.get(one.weight, (np.zeros(values.size, dtype=np.int64), 0))
        total.late[one.weight] = digits, of + one.weight_total
    low, high = kernels.add_into(digits, values)
    return max(int(high), -int(low))
