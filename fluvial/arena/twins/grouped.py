"""Rules that first put updates into groups: by staleness, by device, by chance."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.twins.distances import RFA_ROUNDS, RFA_SMOOTH
from fluvial.arena.twins.shape import Batch, Combined, Doubles, Twin, geometric_median, weighted

if TYPE_CHECKING:
    from numpy.typing import NDArray

BASGD_BUCKETS: Final = 10
BUCKET_SIZE: Final = 2
CLUSTERS: Final = 3
CLUSTER_ROUNDS: Final = 10
MEMORY: Final = 0.5
"""What AsyncFilter's moving mean of a group keeps of the past."""
SEPARATION_MIN: Final = 2.0
"""Suspicion counts where the farthest cluster is so many times as far as the nearest."""


class AsyncFilter(Twin):
    """Distances from the moving mean of their staleness' group, in three clusters: the farthest is left out.

    As the paper's, but that the middle one, which it holds back for a version, counts at once.
    """

    name = "asyncfilter"
    source = "Kang and Li 2024, AsyncFilter, Middleware 2024, section 4"

    def __init__(self) -> None:
        self._means: dict[int, Doubles] = {}

    @property
    def state_bytes(self) -> int:
        """See ``Twin``."""
        return sum(mean.nbytes for mean in self._means.values())

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        scores = np.zeros(len(batch.updates))
        for group in np.unique(batch.staleness):
            rows = batch.staleness == group
            now = np.median(batch.updates[rows], axis=0)
            before = self._means.get(int(group))
            mean = now if before is None else MEMORY * before + (1.0 - MEMORY) * now
            self._means[int(group)] = mean
            apart = np.linalg.norm(batch.updates[rows] - mean, axis=1)
            usual = float(np.median(apart))
            scores[rows] = apart / usual if usual > 0.0 else 0.0
        counted = np.where(self._farthest(scores), 0.0, batch.weights)
        return Combined(weighted(batch.updates, counted), counted)

    @staticmethod
    def _farthest(scores: Doubles) -> NDArray[np.bool_]:
        """Which belong to the farthest of three clusters, by Lloyd's steps; none where all are near."""
        centres = np.quantile(scores, [0.0, 0.5, 1.0])
        for _ in range(CLUSTER_ROUNDS):
            mine = np.abs(scores[:, None] - centres[None, :]).argmin(axis=1)
            centres = np.array(
                [scores[mine == c].mean() if (mine == c).any() else centres[c] for c in range(CLUSTERS)]
            )
        mine = np.abs(scores[:, None] - centres[None, :]).argmin(axis=1)
        far = centres[-1] > SEPARATION_MIN * max(centres[1], 1e-12)
        left_out: NDArray[np.bool_] = (mine == CLUSTERS - 1) & far
        return left_out


class Basgd(Twin):
    """A bucket for each device's number modulo B; the mean in each, then the median of the buckets."""

    name = "basgd"
    source = "Yang and Li 2021, BASGD, algorithm 1"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        bucket = np.array([zlib.crc32(device.encode()) % BASGD_BUCKETS for device in batch.devices])
        means = [
            weighted(batch.updates[bucket == b], batch.weights[bucket == b])
            for b in range(BASGD_BUCKETS)
            if (bucket == b).any()
        ]
        return Combined(np.median(means, axis=0), batch.weights)


class Bucketing(Twin):
    """The means of pairs drawn at random, then their geometric median."""

    name = "bucketing"
    source = "Karimireddy et al. 2022, Byzantine-robust learning on heterogeneous data, algorithm 1"
    symmetric = False

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        order = batch.rng.permutation(k)
        groups = [order[at : at + BUCKET_SIZE] for at in range(0, k, BUCKET_SIZE)]
        means = np.stack([weighted(batch.updates[rows], batch.weights[rows]) for rows in groups])
        mean, shares = geometric_median(means, np.ones(len(means)), RFA_ROUNDS, RFA_SMOOTH)
        counted = np.zeros(k)
        for rows, share in zip(groups, shares, strict=True):
            counted[rows] = share * batch.weights[rows]
        return Combined(mean, counted)
