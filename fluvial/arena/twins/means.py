"""Rules that look at each coordinate, or at none."""

from __future__ import annotations

import numpy as np

from fluvial.arena.twins.shape import Batch, Combined, Twin, medians, suspects, weighted


class Mean(Twin):
    """The weighted mean: no defence."""

    name = "mean"
    source = "Nguyen et al. 2022, FedBuff, algorithm 1"
    breakdown = False

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        return Combined(weighted(batch.updates, batch.weights), batch.weights)


class CoordinateMedian(Twin):
    """Of each coordinate the median."""

    name = "coordinate-median"
    source = "Yin et al. 2018, Byzantine-robust distributed learning, definition 1"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        return Combined(medians(batch.updates), batch.weights)


class TrimmedMean(Twin):
    """Of each coordinate the largest and the smallest are left out, as many as are suspected."""

    name = "trimmed-mean"
    source = "Yin et al. 2018, Byzantine-robust distributed learning, definition 2"

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        k = len(batch.updates)
        trim = min(suspects(k), (k - 1) // 2)
        ordered = np.sort(batch.updates, axis=0)
        return Combined(ordered[trim : k - trim].mean(axis=0), batch.weights)
