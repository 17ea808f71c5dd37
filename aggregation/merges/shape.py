"""The one shape of a merge: from the buckets' inner products and weights to the coefficients of their sum.

Binary64, each operation rounded by itself, sums one after another in the written order: only + - * / and sqrt, each
correctly rounded by IEEE 754, so any machine gets the same bits. (Python's own ``sum`` compensates since 3.12: it is
another sum.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, Protocol

from aggregation.merges.buckets import BUCKETS_MAX

BUCKETS_MIN: Final = 3
"""Of two nobody can say which is the bad one."""
BYZANTINE_MAX: Final = (BUCKETS_MAX - BUCKETS_MIN) // 2
ITERATIONS_MAX: Final = 64

Gram = Sequence[Sequence[float]]
"""Inner products of n vectors: n rows of n."""


class MergeParameters(Protocol):
    """What a policy says of the merge; each member reads what it needs."""

    @property
    def buckets(self) -> int:
        """How many a partition's accepted updates are spread over."""
        ...

    @property
    def byzantine(self) -> int:
        """How many buckets may be bad; 0: as many as there can be."""
        ...

    @property
    def iterations(self) -> int:
        """For the geometric median: how often it is brought nearer."""
        ...


class Merge(ABC):
    """One merge. Pure: the same arguments give the same coefficients everywhere."""

    name: ClassVar[str]
    buckets_min: ClassVar[int] = BUCKETS_MIN
    buckets_max: ClassVar[int] = BUCKETS_MAX
    robust: ClassVar[bool] = True
    """Whether it does anything but add: what does not is done in integers, and asks for no coefficients."""

    @abstractmethod
    def coefficients(self, parameters: MergeParameters, gram: Gram, weights: Sequence[int]) -> list[float]:
        """What each of n buckets' means counts, n numbers of 0 or more which come to about 1.

        ``gram[a][b]`` is the inner product of the mean updates of buckets a and b; ``weights[b]`` what bucket b's
        updates weigh, 1 or more, in units of 1/65536. n is 3 or more, and may be below ``parameters.buckets``: a bucket
        that nobody was in is left out.
        """


def tolerated(parameters: MergeParameters, buckets: int) -> int:
    """How many of so many buckets a merge takes to be bad: what the policy says if so many can be, else the most."""
    said = parameters.byzantine
    return said if said > 0 and buckets >= 2 * said + BUCKETS_MIN else (buckets - BUCKETS_MIN) // 2


def added(numbers: Iterable[float]) -> float:
    """The numbers one after another, each sum rounded; 0.0 of none."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def shares_of(weights: Sequence[int]) -> list[float]:
    """Each weight as a part of their sum."""
    total = float(sum(weights))
    return [float(one) / total for one in weights]
