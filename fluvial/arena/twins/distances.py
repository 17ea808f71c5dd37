"""Rules that look at how far updates are from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.twins.shape import (
    Batch,
    Combined,
    Doubles,
    Twin,
    distances,
    geometric_median,
    suspects,
    weighted,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

RFA_ROUNDS: Final = 8
RFA_SMOOTH: Final = 1e-6
CLIPPING_ROUNDS: Final = 3


def krum_scores(apart: Doubles, bad: int) -> Doubles:
    """The sum of squared distances to the k − f − 2 nearest others, float64[k]."""
    nearest = max(1, len(apart) - bad - 2)
    scores: Doubles = np.sort(apart, axis=1)[:, 1 : 1 + nearest].sum(axis=1)
    return scores


def _chosen(k: int, rows: NDArray[np.int64]) -> Doubles:
    counted = np.zeros(k)
    counted[rows] = 1.0
    return counted


class Krum(Twin):
    """The one update that is nearest to its neighbours."""

    name = "krum"
    source = "Blanchard et al. 2017, Machine learning with adversaries, section 4"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        best = np.argsort(krum_scores(distances(batch.updates), suspects(k)), kind="stable")[:1]
        return Combined(batch.updates[best[0]], _chosen(k, best))


class MultiKrum(Twin):
    """The mean of the k − f best."""

    name = "multi-krum"
    source = "Blanchard et al. 2017, Machine learning with adversaries, section 4"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        bad = suspects(k)
        best = np.argsort(krum_scores(distances(batch.updates), bad), kind="stable")[: max(1, k - bad)]
        counted = _chosen(k, best) * batch.weights
        return Combined(weighted(batch.updates, counted), counted)


class Bulyan(Twin):
    """Krum chooses k − 2f, one after another; of each coordinate those nearest to the median count."""

    name = "bulyan"
    source = "El Mhamdi et al. 2018, The hidden vulnerability, section 4"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        bad = max(0, min(suspects(k), (k - 3) // 4))
        apart, left = distances(batch.updates), list(range(k))
        chosen: list[int] = []
        while len(chosen) < max(1, k - 2 * bad):
            among = apart[np.ix_(left, left)]
            scores = krum_scores(among, bad) if len(left) > 1 else np.zeros(1)
            best = np.lexsort((among.sum(axis=1), scores))[0]  # two that are each other's nearest tie
            chosen.append(left.pop(int(best)))
        points = batch.updates[chosen]
        keep = max(1, len(chosen) - 2 * bad)
        off = np.abs(points - np.median(points, axis=0))
        nearest = np.argsort(off, axis=0, kind="stable")[:keep]
        mean = np.take_along_axis(points, nearest, axis=0).mean(axis=0)
        return Combined(mean, _chosen(k, np.array(chosen)))


class GeometricMedian(Twin):
    """The point with the least sum of distances."""

    name = "geometric-median"
    source = "Pillutla et al. 2022, Robust aggregation for federated learning (RFA), algorithm 2"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        return Combined(*geometric_median(batch.updates, batch.weights, RFA_ROUNDS, RFA_SMOOTH))


class CentredClipping(Twin):
    """Steps from the last mean, each update's clipped; the radius is the median distance from there."""

    name = "centred-clipping"
    source = "Karimireddy et al. 2021, Learning from history, algorithm 2"

    def __init__(self) -> None:
        self._centre: Doubles | None = None

    @property
    def state_bytes(self) -> int:
        """See ``Twin``."""
        return 0 if self._centre is None else self._centre.nbytes

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        centre = np.zeros(batch.updates.shape[1]) if self._centre is None else self._centre
        factors = np.ones(len(batch.updates))
        for _ in range(CLIPPING_ROUNDS):
            off = batch.updates - centre
            norms = np.linalg.norm(off, axis=1)
            radius = float(np.median(norms))
            factors = np.minimum(1.0, np.divide(radius, norms, out=np.ones_like(norms), where=norms > 0.0))
            centre = centre + weighted(off * factors[:, None], batch.weights)
        self._centre = centre
        return Combined(centre, batch.weights)


class NearestNeighbourMixing(Twin):
    """Each update becomes the mean of its k − f nearest, itself included; then the trimmed mean of these."""

    name = "nearest-neighbour-mixing"
    source = "Allouah et al. 2023, Fixing by mixing, algorithm 2"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        bad = suspects(k)
        near = np.argsort(distances(batch.updates), axis=1, kind="stable")[:, : max(1, k - bad)]
        mixed = batch.updates[near].mean(axis=1)
        trim = min(bad, (k - 1) // 2)
        counted = np.bincount(near.ravel(), minlength=k) / k
        return Combined(np.sort(mixed, axis=0)[trim : k - trim].mean(axis=0), counted)
