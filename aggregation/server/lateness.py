"""What lateness leaves of a window at the merge (ADR 42), and what the windows of one version come to.

A worker weighs an update by how old its base is at its place in the log. A window can come late itself: its region was
cut off, or its worker was away. What it holds was made for the version that it was folded under, and is added to a
later one. Merged L versions after that one it weighs ``staleness.weights[L]`` of itself, beyond
``staleness.versions_max`` nothing: it is dropped, and its version says so.

Windows follow each other in a partition, so a dropped one goes into a version all the same: its offsets are used up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from aggregation.defences import Histograms
from aggregation.defences.usual import pooled
from aggregation.weights.fixed_point import WEIGHT_ONE, weight_after

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate


class FoldedUnder(Protocol):
    """A window, by its record or as a manifest names it."""

    @property
    def version(self) -> int:
        """The version that its partition was at."""
        ...


@dataclass(frozen=True, slots=True)
class Lateness:
    """How much windows weigh in the version after ``version``.

    ``weights[L]`` is what is left of one that comes L versions late, in units of 1/65536; () where lateness is nothing.
    """

    version: int = 0
    weights: tuple[int, ...] = ()

    def versions_of(self, aggregate: FoldedUnder) -> int:
        """How many versions late a window is; 0 where lateness is nothing.

        One of a version above ours is not late: there is a newer version then, and ours will not become true.
        """
        return max(0, self.version - aggregate.version) if self.weights else 0

    def weight_of(self, aggregate: Aggregate) -> int:
        """What is left of a window, in units of 1/65536; 0: it is dropped."""
        if not self.weights:
            return WEIGHT_ONE
        late = self.versions_of(aggregate)
        return self.weights[late] if late < len(self.weights) else 0

    def updates_of(self, waiting: Iterable[Aggregate]) -> int:
        """The accepted updates of windows that are not dropped."""
        return sum(one.accepted for one in waiting if self.weight_of(one))


ON_TIME: Final = Lateness()
"""No window is late: so it is under policies before ``fluvial/policy/v3``."""


def lateness_under(policy: Policy, version: int) -> Lateness:
    """The lateness of windows that are merged after ``version``, with the policy in force there.

    In rounds a window of an earlier round is dropped: its round is over.
    """
    if policy.in_rounds:
        return Lateness(version, (WEIGHT_ONE,))
    return Lateness(version, policy.staleness.weights) if policy.buffer.late_windows else ON_TIME


@dataclass(frozen=True, slots=True)
class MergedWindows:
    """The windows of one version, in order, and what lateness leaves of each."""

    windows: tuple[Aggregate, ...]
    weights: tuple[int, ...]
    late: int = 0
    """How many versions late the latest of those is that count and hold an update."""

    @classmethod
    def of(cls, windows: Iterable[Aggregate], lateness: Lateness) -> MergedWindows:
        """With the weights that ``lateness`` gives."""
        taken = tuple(windows)
        late = (lateness.versions_of(one) for one in taken if one.accepted and lateness.weight_of(one))
        return cls(taken, tuple(map(lateness.weight_of, taken)), max(late, default=0))

    @property
    def counting(self) -> tuple[Aggregate, ...]:
        """Those that were not dropped."""
        return tuple(one for one, weight in self.pairs if weight)

    @property
    def pairs(self) -> tuple[tuple[Aggregate, int], ...]:
        """Each window with what is left of it, in units of 1/65536."""
        return tuple(zip(self.windows, self.weights, strict=True))

    @property
    def accepted(self) -> int:
        """Accepted updates in windows that count."""
        return sum(one.accepted for one in self.counting)

    @property
    def dropped(self) -> int:
        """Accepted updates in windows that were dropped."""
        return sum(one.accepted for one in self.windows) - self.accepted

    @property
    def staleness_max(self) -> int:
        """The largest staleness of an update in its window, in versions."""
        return max((one.staleness_max for one in self.counting), default=0)

    @property
    def delay(self) -> int:
        """A bound of how many versions old an update's base is: the largest staleness and the largest lateness."""
        return self.staleness_max + self.late

    @property
    def weight_total(self) -> int:
        """The updates' weights after lateness: a window that accepted some has at least 1."""
        return sum(weight_after(one.weight_total, weight) for one, weight in self.pairs)

    def pools(self, before: Histograms) -> Histograms:
        """What is usual after this version, where ``before`` was usual."""
        said = [one.histograms for one in self.counting if one.histograms is not None]
        return Histograms(
            pooled(before.norms, [one.norms for one in said]),
            pooled(before.cosines, [one.cosines for one in said]),
            pooled(before.shares, [one.shares for one in said]),
        )
