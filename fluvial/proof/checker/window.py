"""What the checker's fold says of a record and of a window."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fluvial.proof.checker import arithmetic, edges
from fluvial.proof.checker.buckets import Buckets
from fluvial.proof.checker.edges import Heard
from fluvial.proof.checker.known import number_of
from fluvial.proof.checker.late import weight_after
from fluvial.proof.checker.standing import Tally, counts_shares
from fluvial.proof.checker.task import Task
from fluvial.proof.checker.wire import Sealed, Signer

SINCE_POLICY: Final = 6
"""The number of the policy format whose windows say by base what they hold."""
Verdict = dict[str, Any]
"""The fields of Verdict that say what became of a record, but not those that say why: these are for people."""


def verdict_of(offset: int, outcome: str, **known: Any) -> Verdict:
    """A verdict with the documented values for what is not known."""
    return {
        "offset": offset,
        "outcome": outcome,
        "device_id": "",
        "update_id": "",
        "base_version": -1,
        "staleness": -1,
        "weight": 0,
        "clip": 0.0,
        "norm": 0.0,
        "norm_deviations": 0.0,
        "cosine": 0.0,
    } | known


@dataclass(slots=True)
class Bases:
    """Of a window's accepted updates, by the version that they answered: how many, and their weights in 1/65536."""

    counted: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, base: int, accepted: int, weight: int) -> None:
        """So many updates more, which weigh so much together."""
        known, total = self.counted.get(base, (0, 0))
        self.counted[base] = (known + accepted, total + weight)

    def record(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The field of a RegionalAggregate since v4 that v3 has not; nothing under a policy before v6."""
        if number_of(policy) < SINCE_POLICY:
            return {}
        rows = [(base, *self.counted[base]) for base in sorted(self.counted)]
        return {"bases": [{"base": base, "accepted": many, "weight": weight} for base, many, weight in rows]}


@dataclass(slots=True)
class Window:
    """The open window."""

    first_offset: int
    counts: dict[str, int] = field(default_factory=dict)
    weight_total: int = 0
    staleness_total: int = 0
    staleness_max: int = 0
    update_bytes: int = 0
    sums: arithmetic.Ints | None = None
    contributors: Any = field(default_factory=hashlib.sha256)
    tally: Tally = field(default_factory=Tally)
    buckets: Buckets = field(default_factory=Buckets)
    bases: Bases = field(default_factory=Bases)
    cohorts: dict[str, int] = field(default_factory=dict)
    edge_updates: int = 0

    @property
    def accepted(self) -> int:
        """Updates that count, of this log and of edges'."""
        return self.counts.get("accepted", 0) + self.edge_updates

    def add_edge(self, heard: Heard, sealed: Sealed, verdict: Verdict, task: Task) -> None:
        """Add a window of an edge with the verdict that it got; nothing of one that accepted nothing."""
        if heard.sums is None:
            return
        late, weight = verdict["staleness"], verdict["weight"]
        if self.sums is None:
            self.sums = np.zeros(task.sum_elements, dtype=np.int64)
        self.sums += edges.scaled(heard.sums, weight)
        added, accepted = 0, heard.record["accepted"]
        for one in heard.bases:
            left = weight_after(one["weight"], weight)
            self.bases.add(one["base"], one["accepted"], left)
            added += left
        self.buckets.add(0, added, accepted)
        self.edge_updates += accepted
        self.weight_total += added
        self.staleness_total += heard.record["staleness_total"] + accepted * late
        self.staleness_max = max(self.staleness_max, heard.record["staleness_max"] + late)
        self.update_bytes += sealed.record_bytes
        self.contributors.update(struct.pack("<qqd", verdict["offset"], added, 1.0) + sealed.signature)
        self.tally.add_all(heard.record)

    def totals(self) -> dict[str, Any]:
        """The fields of a RegionalAggregate that are totals, by whatever policy."""
        return {
            "counts": {outcome: self.counts[outcome] for outcome in sorted(self.counts)},
            "accepted": self.accepted,
            "weight_total": self.weight_total,
            "staleness_total": self.staleness_total,
            "staleness_max": self.staleness_max,
            "update_bytes": self.update_bytes,
            "sum_sha256": "" if self.sums is None else arithmetic.sha256(self.sums.astype("<i8").tobytes()),
            "contributors_sha256": self.contributors.hexdigest(),
        }

    def is_full_of(self, cohort: str, policy: dict[str, Any]) -> bool:
        """Whether as many updates of a certified cohort were accepted as the policy lets one window have."""
        most = policy.get("shares", {}).get("cohort_window_max", 0)
        return bool(cohort) and most > 0 and self.cohorts.get(cohort, 0) >= most

    def count_cohort(self, signer: Signer | None) -> None:
        """An update was accepted whose signer's certificate may name a cohort."""
        if signer is not None:
            self.cohorts[signer.cohort] = self.cohorts.get(signer.cohort, 0) + 1

    def room(self, task: Task, bucket: int, buckets: int) -> tuple[arithmetic.Ints, ...]:
        """The sums of the weights in a bucket of so many, those of the buffers, and those of control; int64."""
        size = task.parameters
        if self.sums is None:
            self.sums = np.zeros(task.sum_elements + (buckets - 1) * size, dtype=np.int64)
        rest = self.sums[buckets * size :]
        return self.sums[bucket * size : (bucket + 1) * size], rest[: task.digits], rest[task.digits :]

    def said(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The fields of a RegionalAggregate that versions after the first have, by the policy's format."""
        histograms = self.tally.record() if counts_shares(policy) else {}
        return histograms | self.buckets.record(policy) | self.bases.record(policy)


@dataclass(frozen=True, slots=True)
class Closed:
    """A window that closed: its RegionalAggregate, that record's identity, its sums, and the state after it."""

    record: dict[str, Any]
    sha256: str
    sums: arithmetic.Ints | None
    snapshot: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Folded:
    """What one record came to. ``sealed`` is its envelope where it has one; ``closed`` the window that it closed.

    ``barrier`` is the record of an authentic Barrier of this task and region, whether it changes anything or not.
    """

    verdict: Verdict
    sealed: Sealed | None
    barrier: dict[str, Any] | None
    closed: Closed | None
