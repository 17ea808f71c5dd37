"""From a version's windows to what its manifest says of them, and from there to what its barriers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.defences import Histograms, Usual
from aggregation.errors import IntegrityProblem
from aggregation.weights.fixed_point import WEIGHT_ONE
from schemas.manifests import Input, Manifest, Pools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.server.aggregates import Aggregate, Slot


def next_cursors(before: Mapping[Slot, int], inputs: tuple[Aggregate, ...]) -> dict[str, tuple[int, ...]]:
    """The cursors after ``inputs``, which continue every partition's sequence where ``before`` stands."""
    after = dict(before)
    for aggregate in inputs:
        if aggregate.sequence != after[aggregate.slot]:
            raise IntegrityProblem(
                "FLV-3003",
                f"aggregate {aggregate.sequence} of {aggregate.region}[{aggregate.partition}] does not "
                f"continue at {after[aggregate.slot]}",
            )
        after[aggregate.slot] += 1
    return {
        region: tuple(after[slot] for slot in sorted(after) if slot[0] == region)
        for region in sorted({r for r, _ in after})
    }


def input_of(aggregate: Aggregate, weight: int | None = None) -> Input:
    """How a manifest names an aggregate; one since v3 says too how much is left of it, ``weight``."""
    since_v3 = (
        {} if weight is None else {"version": aggregate.version, "weight_total": aggregate.weight_total}
    )
    return Input(
        region=aggregate.region,
        partition=aggregate.partition,
        sequence=aggregate.sequence,
        first_offset=aggregate.first_offset,
        next_offset=aggregate.next_offset,
        accepted=aggregate.accepted,
        sum_sha256=aggregate.sum_sha256,
        sha256=aggregate.sha256,
        **since_v3,
        weight=WEIGHT_ONE if weight is None else weight,
    )


def pools_of(histograms: Histograms) -> Pools:
    """How a manifest says what is usual."""
    return Pools(histograms.norms, histograms.cosines, histograms.shares)


def histograms_of(manifest: Manifest) -> Histograms:
    """What is usual after a version, as pools; empty ones where its format does not say."""
    return Histograms(manifest.usual.norms, manifest.usual.cosines, manifest.usual.shares)


def usual_of(manifest: Manifest) -> Usual:
    """What a version's barriers say is usual."""
    return histograms_of(manifest).usual


def sum_counts(inputs: tuple[Aggregate, ...]) -> dict[str, int]:
    """Records by outcome over all inputs, keys ascending."""
    total: dict[str, int] = {}
    for aggregate in inputs:
        for outcome, count in aggregate.counts.items():
            total[outcome] = total.get(outcome, 0) + count
    return dict(sorted(total.items()))
