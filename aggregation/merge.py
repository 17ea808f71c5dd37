"""The merge: closed windows of all regions become one global step.

Adding windows is adding int64, so any grouping gives the same bits. *Which* windows go into a version is a
decision (of whoever wins the conditional PUT) and is recorded in the manifest; everything else here is
derived from it.

FedBuff (Nguyen et al. 2022, algorithm 1, line 10): the mean delta is the weighted sum divided by the number
of updates. ``divide_by = "weights"`` divides by the sum of the staleness weights instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aggregation.codecs import Reference, reference_of
from aggregation.errors import IntegrityProblem
from aggregation.optimizers import server_step
from aggregation.policy import SUM_LIMIT, Policy
from aggregation.staleness import WEIGHT_ONE
from aggregation.state import NO_SHA256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aggregation.layout import Layout

SEQUENCES_AHEAD_MAX = 1024
"""Windows of one partition that may come before their predecessor: workers publish in sequence, so more is a defect."""

Slot = tuple[str, int]
"""A partition of the whole task: (region, partition)."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What one closed window is to the rest of the world: a small record; the bulk lies under its hashes.

    ``sum_sha256`` is "" when the window accepted nothing. ``sha256`` is the hash of the record's Avro
    payload: the aggregate's identity, whoever signed it.
    """

    task: str
    region: str
    partition: int
    sequence: int
    first_offset: int
    next_offset: int
    version: int
    policy_sha256: str
    counts: Mapping[str, int]
    accepted: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    sum_sha256: str
    state_sha256: str
    contributors_sha256: str
    previous_sha256: str
    sha256: str

    @property
    def slot(self) -> Slot:
        """The partition that it belongs to."""
        return (self.region, self.partition)


class PendingAggregates:
    """Aggregates that no version holds yet, in order of arrival, each partition's in sequence.

    ``cursors`` maps every slot to the next sequence that a version may take.
    """

    def __init__(self, cursors: Mapping[Slot, int]) -> None:
        self._next = dict(cursors)
        self._waiting: list[Aggregate] = []
        self._early: dict[Slot, dict[int, Aggregate]] = {slot: {} for slot in cursors}
        self._known: dict[tuple[Slot, int], str] = {}

    def offer(self, aggregate: Aggregate) -> bool:
        """Take one aggregate; False for one that is merged or known already.

        Raises ``IntegrityProblem`` (FLV-3002) when the same sequence number comes with another content, or
        FLV-3003 when it does not continue its partition's chain, or is over ``SEQUENCES_AHEAD_MAX`` ahead of it.
        """
        slot, sequence = aggregate.slot, aggregate.sequence
        if slot not in self._next:
            raise IntegrityProblem(
                "FLV-3003", f"an aggregate names partition {slot[0]}[{slot[1]}], which the task does not have"
            )
        known = self._known.get((slot, sequence))
        if known is not None and known != aggregate.sha256:
            raise IntegrityProblem(
                "FLV-3002",
                f"divergence: aggregate {sequence} of {slot[0]}[{slot[1]}] is {known[:12]} "
                f"and also {aggregate.sha256[:12]}",
                hint="two workers folded one log differently: run `fluvial audit` to see which is right, "
                "and stop the other",
            )
        if known is not None or sequence < self._next[slot]:
            return False
        if sequence > self._next[slot] + SEQUENCES_AHEAD_MAX:
            raise IntegrityProblem(
                "FLV-3003",
                f"aggregate {sequence} of {slot[0]}[{slot[1]}] came, the next one is {self._next[slot]}",
                hint="records of the aggregates topic are missing, or its worker is broken: run `fluvial audit`",
            )
        self._known[(slot, sequence)] = aggregate.sha256
        self._early[slot][sequence] = aggregate
        self._admit_in_sequence(slot)
        return True

    def _admit_in_sequence(self, slot: Slot) -> None:
        early = self._early[slot]
        while self._next[slot] in early:
            aggregate = early.pop(self._next[slot])
            before = self._known.get((slot, aggregate.sequence - 1)) if aggregate.sequence else NO_SHA256
            if before is not None and before != aggregate.previous_sha256:
                del self._known[
                    (slot, aggregate.sequence)
                ]  # it was never taken: the right one may still come
                raise IntegrityProblem(
                    "FLV-3003",
                    f"aggregate {aggregate.sequence} of {slot[0]}[{slot[1]}] follows "
                    f"{aggregate.previous_sha256[:12] or 'none'}, expected {before[:12] or 'none'}",
                    hint="run `fluvial audit` to see which worker is right",
                )
            self._waiting.append(aggregate)
            self._next[slot] += 1

    def waiting(self) -> Sequence[Aggregate]:
        """The aggregates that may be merged next, in order of arrival."""
        return tuple(self._waiting)

    @property
    def updates(self) -> int:
        """Accepted updates among ``waiting()``."""
        return sum(aggregate.accepted for aggregate in self._waiting)

    def advance(self, cursors: Mapping[Slot, int]) -> None:
        """Forget what a committed version holds: everything below its ``cursors``."""
        self._waiting = [a for a in self._waiting if a.sequence >= cursors[a.slot]]
        for slot, sequence in cursors.items():
            self._next[slot] = max(self._next[slot], sequence)
            self._early[slot] = {s: a for s, a in self._early[slot].items() if s >= sequence}
            self._admit_in_sequence(slot)
        # One below the cursor stays known, so that the next aggregate's chain can be checked.
        self._known = {(slot, s): sha for (slot, s), sha in self._known.items() if s >= cursors[slot] - 1}


def choose(waiting: Iterable[Aggregate], policy: Policy, *, deadline_passed: bool) -> tuple[Aggregate, ...]:
    """Which aggregates make the next version: the first that hold ``buffer.updates``, or all at the deadline.

    Empty when it is not time yet. Never more than ``updates_per_version_max`` updates, the bound of the
    overflow check, but for a single window that was filled under an earlier, larger policy: it is a version
    by itself.
    """
    chosen: list[Aggregate] = []
    updates = 0
    for aggregate in waiting:
        if updates and updates + aggregate.accepted > policy.updates_per_version_max:
            return tuple(chosen)
        chosen.append(aggregate)
        updates += aggregate.accepted
        if updates >= policy.buffer.updates:
            return tuple(chosen)
    return tuple(chosen) if updates and deadline_passed else ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A version's arrays: model float32[P] and the optimizer's float64[P] arrays by name."""

    model: npt.NDArray[np.float32]
    optimizer: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Step:
    """What a merge makes: the next checkpoint, and its step as a fixed-point direction for anomaly scores."""

    checkpoint: Checkpoint
    reference: Reference


def add_sums(sums: Iterable[npt.NDArray[np.int64]], parameters: int) -> npt.NDArray[np.int64]:
    """The exact sum of windows' sums, int64[P].

    No policy lets a version overflow, but one version may hold windows of two policies: so the bound is
    looked at again here. ``IntegrityProblem`` (FLV-3004) where the largest magnitudes of the windows could
    leave int64.
    """
    total = np.zeros(parameters, dtype=np.int64)
    reach = 0
    for one in sums:
        reach += max(int(one.max(initial=0)), -int(one.min(initial=0)))
        if reach > SUM_LIMIT:
            raise IntegrityProblem(
                "FLV-3004", f"the sums of a version reach {reach:.3e}, the bound is {SUM_LIMIT:.3e}"
            )
        total += one
    return total


def merge(
    parent: Checkpoint,
    total: npt.NDArray[np.int64],
    *,
    updates: int,
    weight_total: int,
    policy: Policy,
    layout: Layout,
) -> Step:
    """One global step.

    ``total`` int64[P] is the exact sum over ``updates`` updates of the weight ``weight_total``.
    """
    if updates < 1 or weight_total < 1:
        raise IntegrityProblem(
            "FLV-3004",
            f"a version of {updates} updates with the weight {weight_total}, expected 1 or more of each",
        )
    divisor = float(updates) if policy.server.divide_by == "updates" else weight_total / WEIGHT_ONE
    mean_delta = total.astype(np.float64) / float(1 << policy.fixed_point.exponent) / divisor
    model, optimizer = server_step(policy.server, parent.model, parent.optimizer, mean_delta)
    step = model.astype(np.float64) - parent.model.astype(np.float64)
    return Step(Checkpoint(model, optimizer), reference_of(step, layout))
