"""Whether an edge's window counts in the log above it, and what it adds there. Checks all, then changes.

An edge is believed as much as the devices that it speaks for, and no more: so many updates a version as the policy
allows, each of a weight of at most 1 and of a clipped norm, in windows that follow each other. Whether its own log
gives the window is what an audit sees, who walks down.

The checks run from cheap and certain to dear; the first that fails gives the verdict. From the chain's on, the edge's
place has moved, whatever becomes of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.fold.admission import SHA256_SHOWN, not_ours, wrong_base
from aggregation.fold.bases import Base
from aggregation.fold.edge_forms import is_beyond, wrong_form, wrong_sums
from aggregation.fold.rejections import AGGREGATED
from aggregation.fold.state import EdgePlace
from aggregation.merges import Bucket
from aggregation.reasons import Because, Reason, because
from aggregation.weights.fixed_point import HALF, WEIGHT_FRACTION_BITS, WEIGHT_ONE, weight_after

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.fold.events import EdgeAggregate
    from aggregation.fold.state import PartitionState

SAID_MAX: Final = (1 << 63) - 1
"""A window may claim as many updates as a record can say, and a verdict can say no more."""
CLIP: Final = 1.0
"""What stands for the clip factor of a window: its updates were clipped where they were folded."""


@dataclass(frozen=True, slots=True)
class JudgedEdge:
    """What becomes of an edge's window: why, and whether the edge's place moves.

    ``staleness`` is how many versions late it comes, ``weight`` what that leaves of it, in units of 1/65536; 0 where it
    does not count.
    """

    because: Because
    moves: bool = False
    staleness: int = -1
    weight: int = 0

    @property
    def counts(self) -> bool:
        """Whether it was taken."""
        return self.because.reason.outcome == AGGREGATED


def judge_edge(state: PartitionState, event: EdgeAggregate) -> JudgedEdge:
    """Judge one window of an edge against the state of the partition above it. Changes nothing."""
    window, edge = event.window, event.edge
    denied = not_ours(state, event, edge)
    if denied:
        return JudgedEdge(denied)
    if (window.task, window.region, window.partition) != (event.task, edge, 0):
        return JudgedEdge(because(Reason.EDGE_MISLABELLED, edge))
    place = state.edges.get(edge, EdgePlace())
    if window.sequence < place.sequence:
        return JudgedEdge(because(Reason.EDGE_AGAIN, edge, window.sequence, place.sequence))
    if (window.sequence, window.previous_sha256) != (place.sequence, place.sha256):
        return JudgedEdge(because(Reason.EDGE_GAP, edge, window.sequence, place.sequence))
    counted = place.accepted_at(state.version) + window.accepted
    denied = wrong_base(state, window.version, event.model_sha256, event.timestamp_ms) or _wrong(
        state, event, counted
    )
    if denied:
        return JudgedEdge(denied, moves=True)
    late, weights = state.version - window.version, state.policy.staleness.weights
    why = because(Reason.EDGE_WINDOW, edge, window.sequence, window.accepted)
    return JudgedEdge(why, moves=True, staleness=late, weight=weights[min(late, len(weights) - 1)])


def _wrong(state: PartitionState, event: EdgeAggregate, counted: int) -> Because | None:
    """``counted``: how many updates of the edge count at this version, with these."""
    window, policy, edge = event.window, state.policy, event.edge
    if window.policy_sha256 != state.policy_sha256:
        hashes = (window.policy_sha256[:SHA256_SHOWN], state.policy_sha256[:SHA256_SHOWN])
        return because(Reason.EDGE_POLICY, edge, *hashes)
    if counted > policy.edges.updates_max:
        return because(Reason.EDGE_TOO_MANY, edge, min(counted, SAID_MAX), policy.edges.updates_max)
    flaw = wrong_form(window, state)
    if not flaw and event.sums is not None:
        flaw = wrong_sums(event.sums, window, state.layout)
    if flaw:
        return because(Reason.EDGE_FORM, edge, flaw)
    beyond = "" if event.sums is None else is_beyond(event.sums, window, state.layout, policy)
    if beyond:
        return because(Reason.EDGE_NORM, edge, beyond)
    if window.version < state.version and state.layout.buffers.parameters:
        return because(Reason.EDGE_LATE_BUFFERS, edge, window.version, state.version)
    return None


def count_edge(state: PartitionState, offset: int, event: EdgeAggregate, judged: JudgedEdge) -> None:
    """Add what ``judge_edge`` has taken to the open window, and to what the edge has had at this version.

    Its place has moved before, see ``move_place``.
    """
    place, version = state.edges[event.edge], state.version
    accepted = place.accepted_at(version) + event.window.accepted
    state.edges[event.edge] = place._replace(version=version, accepted=accepted)
    state.window.counts[AGGREGATED] += 1
    if event.sums is not None:
        _add(state, offset, event, judged)


def move_place(state: PartitionState, event: EdgeAggregate) -> None:
    """The edge's next window is the one after this."""
    place = state.edges.get(event.edge, EdgePlace())
    state.edges[event.edge] = place._replace(sequence=event.window.sequence + 1, sha256=event.window.sha256)


def _add(state: PartitionState, offset: int, event: EdgeAggregate, judged: JudgedEdge) -> None:
    into, window, sums = state.window, event.window, event.sums
    assert sums is not None, "it accepted something"
    if into.sums is None:
        into.sums = np.zeros(state.layout.sum_elements, dtype=np.int64)
        into.buckets = (Bucket(),)
    into.sums += scaled_sums(sums, judged.weight)
    added = 0
    for base, accepted, weight in window.bases:
        left = weight_after(weight, judged.weight)
        into.bases[base] = into.bases.get(base, Base(base)).plus(left, accepted)
        added += left
    (bucket,) = into.buckets
    into.buckets = (Bucket(bucket.accepted + window.accepted, bucket.weight + added),)
    into.edge_updates += window.accepted
    into.weight_total += added
    into.staleness_total += window.staleness_total + window.accepted * judged.staleness
    into.staleness_max = max(into.staleness_max, window.staleness_max + judged.staleness)
    into.update_bytes += event.record_bytes
    into.counting.add_all(window.histograms)
    into.add_contributor(offset, added, CLIP, event.signature)


def scaled_sums(sums: npt.NDArray[np.int64], weight: int) -> npt.NDArray[np.int64]:
    """``sums[i]`` · weight / 65536 to the nearest integer, halves up: int64[n] of int64[n]; as late windows merge.

    s is high · 2**16 + low, so that nothing leaves int64.
    """
    if weight == WEIGHT_ONE:
        return sums
    high, low = sums >> WEIGHT_FRACTION_BITS, sums & (WEIGHT_ONE - 1)
    made: npt.NDArray[np.int64] = high * weight + ((low * weight + HALF) >> WEIGHT_FRACTION_BITS)
    return made
