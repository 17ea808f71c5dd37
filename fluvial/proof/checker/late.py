"""How late a window is, what that leaves of it, and what is usual in a task: docs/adr/0042, schemas/meaning.md.

Python's integers have no bounds, so there is nothing to split and nothing to overflow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fluvial.proof.checker import merges
from fluvial.proof.checker.arithmetic import WEIGHT_ONE, Ints, Model
from fluvial.proof.checker.buffers import mean_of, wholes
from fluvial.proof.checker.lots import is_synchronous

NOT_LATE: Final = {"fluvial/manifest/v1", "fluvial/manifest/v2"}
"""Formats of manifests that say nothing of lateness: in their versions every window counts as it is."""
KINDS: Final = ("norms", "cosines", "shares")
Pools = dict[str, list[list[int]]]


def says_lateness(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is of a format that says it; a task's genesis document does not."""
    return bool(manifest) and manifest["format"] not in NOT_LATE


def weight_left(policy: dict[str, Any], parent: int, folded_under: int) -> int:
    """What is left of a window of the version ``folded_under`` that is merged after ``parent``, in 1/65536."""
    late, weights = max(0, parent - folded_under), policy["staleness"]["weights"]
    if is_synchronous(policy):
        return 0 if late else WEIGHT_ONE
    if not policy["buffer"]["late_windows"]:
        return WEIGHT_ONE
    return int(weights[late]) if late <= policy["staleness"]["versions_max"] else 0


def delay_of(policy: dict[str, Any], staleness_max: int, latest: int) -> int:
    """At most so many versions late are a version's updates: the largest staleness and the largest lateness, added.

    Where late windows weigh as others do, their lateness is not looked at.
    """
    return staleness_max + (latest if policy["buffer"].get("late_windows", False) else 0)


def rounded(number: int, weight: int) -> int:
    """Number · weight / 65536 to the nearest integer; of two that are as near the upper one."""
    return (2 * number * weight + WEIGHT_ONE) // (2 * WEIGHT_ONE)


def weight_after(weight_total: int, weight: int) -> int:
    """What the updates of a window weigh in its version: of one that counts and has some, at least 1."""
    return 0 if weight_total == 0 or weight == 0 else max(1, rounded(weight_total, weight))


# -- sums


@dataclass(slots=True)
class Buckets:
    """What a version's windows of so many buckets add up to, after lateness: int64[W] and the weight of each."""

    parts: list[Ints]
    weights: list[int]


@dataclass(slots=True)
class Sums:
    """What the windows of a version add up to.

    ``size`` is W, how many weights there are, ``digits`` ten times the elements of buffers; ``buckets``: the weights'
    sums, by how many buckets a window has; ``values``: the buffers' digits as they were folded, by what is left of
    them; ``control``: the sums of control variates after lateness, int64[C]; ``weighs``: the sum of
    weight_total · weight; ``latest``: how many versions late the latest window is; ``bases``: what updates weigh after
    lateness, by the version that they answered.
    """

    size: int
    digits: int
    buckets: dict[int, Buckets] = field(default_factory=dict)
    values: dict[int, Ints] = field(default_factory=dict)
    control: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weighs: int = 0
    latest: int = 0
    bases: dict[int, int] = field(default_factory=dict)

    def answered(self, record: dict[str, Any], weight: int) -> None:
        """Which versions a window's updates answered, by its RegionalAggregate; before v4 it does not say."""
        for one in record.get("bases", ()):
            self.bases[one["base"]] = self.bases.get(one["base"], 0) + weight_after(one["weight"], weight)

    def add(self, sums: Ints, buckets: list[int], weight_total: int, weight: int) -> None:
        """One window; ``buckets``: what the updates of each weigh."""
        count = len(buckets)
        rows, rest = sums[: count * self.size].reshape(count, self.size), sums[count * self.size :]
        digits, varied = rest[: self.digits], _scaled(rest[self.digits :], weight)
        self.control = self.control + varied if self.control.size else varied
        if count not in self.buckets:
            nothing = [np.zeros(self.size, dtype=np.int64) for _ in buckets]
            self.buckets[count] = Buckets(nothing, [0] * count)
        known = self.buckets[count]
        for b, row in enumerate(rows):
            known.parts[b] += _scaled(row, weight)
            known.weights[b] += weight_after(buckets[b], weight)
        self.values[weight] = self.values.get(weight, np.zeros_like(digits)) + digits
        self.weighs += weight_total * weight

    def combined(self, policy: dict[str, Any]) -> Ints:
        """The sums int64[W] of the version's step, by the policy's merge; added where windows differ in buckets."""
        if len(self.buckets) == 1:
            (only,) = self.buckets.values()
            return merges.combined(policy, only.parts, only.weights)
        parts = [part for one in self.buckets.values() for part in one.parts]
        return sum(parts, start=np.zeros(self.size, dtype=np.int64))

    def means(self) -> Model:
        """The version's buffers: Σ weight · values / Σ weight · weight_total, each rounded once.

        Where a manifest says that its windows weigh nothing, which no window does, they are all 1/65536 heavy.
        """
        weighs = max(1, self.weighs)
        groups = [(weight, wholes(digits)) for weight, digits in self.values.items()]
        count = len(groups[0][1])
        tops = [sum(weight * whole[i] for weight, whole in groups) for i in range(count)]
        return np.array([mean_of(top, weighs) for top in tops], dtype=np.float32)


def _scaled(sums: Ints, weight: int) -> Ints:
    """What lateness leaves of sums."""
    if weight == WEIGHT_ONE:
        return sums
    return np.array([rounded(number, weight) for number in sums.tolist()], dtype=np.int64)


# -- what is usual


def pools_after(before: dict[str, Any], records: Iterable[dict[str, Any]]) -> Pools:
    """The pools after a version of windows with these RegionalAggregates, where ``before`` is the parent's manifest."""
    counted = list(records)
    return {kind: _pool(kind, before, counted) for kind in KINDS}


def _pool(kind: str, before: dict[str, Any], records: list[dict[str, Any]]) -> list[list[int]]:
    old = before["usual"][kind] if says_lateness(before) else []
    pool = {bucket: count * 3 // 4 for bucket, count in old}
    for record in records:
        for one in record.get(kind, ()):
            pool[one["bucket"]] = pool.get(one["bucket"], 0) + 256 * one["count"]
    return [[bucket, pool[bucket]] for bucket in sorted(pool) if pool[bucket]]


def usual_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What barriers of a version say is usual, and the guide that they name. ValueError for pools that are none."""
    if not says_lateness(manifest):
        return {"usual_norm": 0.0, "usual_cosine": 0, "usual_share": 0, "guide_sha256": ""}
    norm, cosine, share = (_middle(manifest["usual"][kind]) for kind in KINDS)
    if not 0 <= norm < 2047 << 3:
        raise ValueError(f"no norm lies in bucket {norm}")
    # The bucket's number is the upper 15 bits of its norms; the next one is 1 in the middle of it, all others are 0.
    middle = struct.unpack(">d", struct.pack(">HIH", norm << 1 | 1, 0, 0))[0] if norm else 0.0
    said = {"usual_norm": middle, "usual_cosine": max(0, cosine), "usual_share": share}
    return said | {"guide_sha256": manifest["guide_sha256"]}


def _middle(pool: list[list[int]]) -> int:
    """The bucket with the lower one of the two middle entries, or the middle one; 0 where there is none."""
    total = sum(count for _, count in pool)
    reached = 0
    for bucket, count in pool:
        reached += count
        if 2 * reached >= total:
            return bucket
    return 0
