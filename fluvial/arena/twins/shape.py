"""What a naive twin is: one paper's rule in numpy, over a buffer of updates. No rule of the fold is written here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

SUSPECTED: Final = 0.3
"""The share of a buffer that a rule is told to expect of attackers, where its paper has such a number."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """``updates`` float64[k, P], ``weights`` float64[k] by staleness, ``staleness`` int64[k], ``devices`` k ids.

    ``guide`` float64[P]: the update that a trusted root set gives, where a rule
    ``needs_root``. ``rng`` is the version's.
    """

    updates: Doubles
    weights: Doubles
    staleness: npt.NDArray[np.int64]
    devices: tuple[str, ...]
    guide: Doubles | None
    rng: np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """``mean`` float64[P], and what each update counted in it: float64[k], 1.0 for one that counts wholly."""

    mean: Doubles
    counted: Doubles


class Twin(ABC):
    """One rule; one object a play, for some remember.

    ``source``: paper and section. ``symmetric``: the order of the updates does not matter. ``fair``: k equal updates
    give that update. ``breakdown``: it withstands one huge update among eleven, which the mean does not.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    needs_root: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True
    fair: ClassVar[bool] = True
    breakdown: ClassVar[bool] = True

    @abstractmethod
    def combine(self, batch: Batch) -> Combined:
        """The buffer's mean, as the rule sees it."""

    @property
    def state_bytes(self) -> int:
        """What it remembers between versions."""
        return 0


def weighted(updates: Doubles, counted: Doubles) -> Doubles:
    """Their mean by these weights; zeros where none has any."""
    total = float(counted.sum())
    if total <= 0.0:
        return np.zeros(updates.shape[1])
    mean: Doubles = (counted @ updates) / total
    return mean


def distances(updates: Doubles) -> Doubles:
    """Squared distances between all pairs, float64[k, k], by a Gram matrix."""
    squares = np.einsum("ij,ij->i", updates, updates)
    between = squares[:, None] + squares[None, :] - 2.0 * (updates @ updates.T)
    apart: Doubles = np.maximum(between, 0.0)
    np.fill_diagonal(apart, 0.0)
    return apart


def cosines(updates: Doubles, guide: Doubles) -> Doubles:
    """float64[k], 0.0 where either is zero."""
    norms = np.linalg.norm(updates, axis=1) * float(np.linalg.norm(guide))
    dots = updates @ guide
    found: Doubles = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0.0)
    return found


def suspects(k: int) -> int:
    """How many of k a rule expects of attackers."""
    return int(SUSPECTED * k)


def geometric_median(
    points: Doubles, weights: Doubles, rounds: int, smooth: float
) -> tuple[Doubles, Doubles]:
    """(point, weights): Weiszfeld's steps with a floor under the distance (Pillutla et al. 2022, algorithm 2)."""
    point, counted = weighted(points, weights), weights
    for _ in range(rounds):
        apart = np.linalg.norm(points - point, axis=1)
        counted = weights / np.maximum(apart, smooth)
        point = weighted(points, counted)
    return point, counted / counted.max()


def medians(points: Doubles) -> Doubles:
    """The median of each coordinate."""
    middle: Doubles = np.median(points, axis=0)
    return middle
