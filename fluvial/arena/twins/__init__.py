"""Naive twins of the papers' rules: a file a family, one shape, one table, one conformance suite."""

from __future__ import annotations

from typing import Final

from fluvial.arena.twins import distances, grouped, means, rooted
from fluvial.arena.twins.shape import Twin

TWINS: Final[dict[str, type[Twin]]] = {
    twin.name: twin
    for twin in (
        means.Mean,
        means.CoordinateMedian,
        means.TrimmedMean,
        distances.Krum,
        distances.MultiKrum,
        distances.Bulyan,
        distances.GeometricMedian,
        distances.CentredClipping,
        distances.NearestNeighbourMixing,
        rooted.FLTrust,
        rooted.AFLGuard,
        rooted.ZenoPlusPlus,
        grouped.AsyncFilter,
        grouped.Basgd,
        grouped.Bucketing,
    )
}
"""Every twin by its name, in the table's order."""
