"""Closed windows as the rest of the world knows them, and those that wait for a version, in sequence by partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.defences import Histograms
from aggregation.errors import IntegrityProblem
from aggregation.fold.state import NO_SHA256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aggregation.fold.bases import Base
    from aggregation.merges import Bucket

MERGED_REMEMBERED_MAX: Final = 64
"""Windows of a partition that a version holds and whose hashes are remembered: another content of one comes late."""
SEQUENCES_AHEAD_MAX: Final = 1024
"""Windows of one partition that may come before their predecessor: workers publish in sequence, so more is a defect."""

Slot = tuple[str, int]
"""A partition of the whole task: (region, partition)."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What one closed window is to the rest of the world: a small record; the bulk lies under its hashes.

    ``sum_sha256`` is "" when the window accepted nothing. ``sha256`` is the hash of the record's Avro
    payload: the aggregate's identity, whoever signed it. ``histograms`` is None where its policy's format knows none,
    ``buckets`` is () there: its sums stand in one; and so is ``bases``, ascending, where it says none.
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
    histograms: Histograms | None = None
    buckets: tuple[Bucket, ...] = ()
    bases: tuple[Base, ...] = ()

    @property
    def slot(self) -> Slot:
        """The partition that it belongs to."""
        return (self.region, self.partition)

    @property
    def bucket_count(self) -> int:
        """How many buckets its sums stand in."""
        return max(1, len(self.buckets))


class PendingAggregates:
    """Aggregates that no version holds yet, in order of arrival, each partition's in sequence.

    ``cursors`` maps every slot to the next sequence that a version may take.
    """

    def __init__(self, cursors: Mapping[Slot, int]) -> None:
        self._cursors = dict(cursors)
        self._next = dict(cursors)
        self._waiting: list[Aggregate] = []
        self._early: dict[Slot, dict[int, Aggregate]] = {slot: {} for slot in cursors}
        self._known: dict[tuple[Slot, int], Aggregate] = {}

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
        if known is not None and known.sha256 != aggregate.sha256:
            raise IntegrityProblem(
                "FLV-3002",
                f"divergence: aggregate {sequence} of {slot[0]}[{slot[1]}] is {known.sha256[:12]} "
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
        self._known[(slot, sequence)] = aggregate
        self._early[slot][sequence] = aggregate
        self._admit_in_sequence(slot)
        return True

    def _admit_in_sequence(self, slot: Slot) -> None:
        early = self._early[slot]
        while self._next[slot] in early:
            aggregate = early.pop(self._next[slot])
            before = self._sha256_before(slot, aggregate.sequence)
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

    def _sha256_before(self, slot: Slot, sequence: int) -> str | None:
        """The hash of the window before ``sequence``; None where that is not known any more."""
        if sequence == 0:
            return NO_SHA256
        before = self._known.get((slot, sequence - 1))
        return None if before is None else before.sha256

    def window(self, slot: Slot, sequence: int) -> Aggregate | None:
        """The window of that sequence, if it has come and is remembered."""
        return self._known.get((slot, sequence))

    def before(self, slot: Slot, sequence: int) -> Aggregate | None:
        """The newest known window of a partition before that sequence."""
        known = [at for one, at in self._known if one == slot and at < sequence]
        return self._known[slot, max(known)] if known else None

    def cursor(self, slot: Slot) -> int:
        """The first sequence of a partition that no version holds."""
        return self._cursors[slot]

    def is_merged(self, slot: Slot, sequence: int) -> bool:
        """Whether a version holds the window of that sequence."""
        return sequence < self._cursors[slot]

    def is_too_far(self, slot: Slot, sequence: int) -> bool:
        """Whether it is over ``SEQUENCES_AHEAD_MAX`` ahead of the next one."""
        return sequence > self._next[slot] + SEQUENCES_AHEAD_MAX

    def correct(self, aggregate: Aggregate) -> None:
        """Of a window that a version holds: what its log gives in truth, so that the next one can follow it."""
        self._known[aggregate.slot, aggregate.sequence] = aggregate

    def withdraw(self, slot: Slot, sequence: int) -> None:
        """Forget the windows of a partition from that sequence on, which no version holds: they may come again."""
        assert not self.is_merged(slot, sequence), "what a version holds stays held"
        self._waiting = [a for a in self._waiting if a.slot != slot or a.sequence < sequence]
        self._early[slot] = {at: one for at, one in self._early[slot].items() if at < sequence}
        self._known = {key: one for key, one in self._known.items() if key[0] != slot or key[1] < sequence}
        self._next[slot] = min(self._next[slot], sequence)

    def waits_for_earlier(self, slot: Slot) -> bool:
        """Whether windows of a partition came, and not yet the one before them."""
        return bool(self._early[slot])

    def waiting(self) -> Sequence[Aggregate]:
        """The aggregates that may be merged next, in order of arrival."""
        return tuple(self._waiting)

    @property
    def updates(self) -> int:
        """Accepted updates among ``waiting()``."""
        return sum(aggregate.accepted for aggregate in self._waiting)

    def advance(self, cursors: Mapping[Slot, int]) -> None:
        """Forget what a committed version holds: everything below its ``cursors``."""
        self._cursors |= cursors
        self._waiting = [a for a in self._waiting if a.sequence >= cursors[a.slot]]
        for slot, sequence in cursors.items():
            self._next[slot] = max(self._next[slot], sequence)
            self._early[slot] = {s: a for s, a in self._early[slot].items() if s >= sequence}
            self._admit_in_sequence(slot)
        # Some below the cursor stay known, so that the next one's chain, and late contradictions, can be seen.
        self._known = {
            (slot, s): one
            for (slot, s), one in self._known.items()
            if s >= cursors[slot] - MERGED_REMEMBERED_MAX
        }
