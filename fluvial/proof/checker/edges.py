"""Edges, by schemas/meaning.md: what a window of an edge says in the log above it, and whether it may count there.

Plain integers throughout. Whether the edge's own log gives the window is another question: see ``below``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fluvial.proof.checker import encoding
from fluvial.proof.checker.arithmetic import WEIGHT_ONE, Ints, sha256
from fluvial.proof.checker.control import rule_of
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.known import knows_edges, number_of

if TYPE_CHECKING:
    from fluvial.proof.checker.task import Task

KIND: Final = "EdgeAggregate"
WINDOW: Final = "RegionalAggregate"
WINDOW_VERSION: Final = 4
SINCE: Final = 6
"""The number of the policy format whose states say which edges were heard."""
LIVE_MAX: Final = 10_000
SHARE_UNIT: Final = 840
LEAST_COUNT: Final = 105
BUCKETS: Final = {"norms": range(16_376), "cosines": range(-64, 65), "shares": range(1, 256)}
SQUARES: Final = 64
"""How many times a norm counts at most that counts by its square."""
LARGEST: Final = (2**24 - 1) * 2**253
"""The largest float32 in units of 2**-149, for a weight of 1/65536."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A window of an edge as a record of the log above says it. ``sums`` are None where it accepted nothing."""

    record: dict[str, Any]
    sha256: str
    sums: list[int] | None

    @property
    def bases(self) -> list[dict[str, int]]:
        """What its updates answered."""
        found: list[dict[str, int]] = self.record["bases"]
        return found


@dataclass(slots=True)
class Place:
    """How far an edge has come: its next sequence, the hash before; so many updates counted at that version."""

    sequence: int = 0
    sha256: str = ""
    version: int = 0
    accepted: int = 0

    def accepted_at(self, version: int) -> int:
        """How many updates of it counted at a version of the partition."""
        return self.accepted if self.version == version else 0


@dataclass(slots=True)
class Edges:
    """The edges that a partition has heard. ``chains``: of every edge the hashes of its windows, by sequence."""

    places: dict[str, Place] = field(default_factory=dict)
    chains: dict[str, dict[int, str]] = field(default_factory=dict)

    def adopt(self, policy: dict[str, Any]) -> None:
        """A barrier brought this policy: one of before v6 has no place for edges in its states."""
        if number_of(policy) < SINCE:
            self.places = {}

    def out_of_turn(self, edge: str, heard: Heard) -> str:
        """Whether a window does not follow the edge's last: ``duplicate``, ``bad_aggregate`` or ""."""
        place = self.places.get(edge, Place())
        if heard.record["sequence"] < place.sequence:
            return "duplicate"
        follows = (heard.record["sequence"], heard.record["previous_sha256"]) == (
            place.sequence,
            place.sha256,
        )
        return "" if follows else "bad_aggregate"

    def move(self, edge: str, heard: Heard) -> None:
        """The window is the edge's last now, whatever becomes of it."""
        place, sequence = self.places.setdefault(edge, Place()), heard.record["sequence"]
        place.sequence, place.sha256 = sequence + 1, heard.sha256
        self.chains.setdefault(edge, {})[sequence] = heard.sha256

    def count(self, edge: str, heard: Heard, version: int) -> None:
        """It counts, at that version of the partition."""
        place = self.places[edge]
        place.accepted = place.accepted_at(version) + heard.record["accepted"]
        place.version = version

    def snapshot(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The field of a PartitionState since v3."""
        if number_of(policy) < SINCE:
            return {}
        rows = sorted(self.places.items(), key=lambda entry: entry[0].encode())
        names = ("sequence", "sha256", "version", "accepted")
        return {
            "edges": [{"edge": edge} | {name: getattr(one, name) for name in names} for edge, one in rows]
        }


# -- reading


def read(record: dict[str, Any], edge: str, *, canonical: bool) -> Heard | str:
    """The window in an EdgeAggregate that an edge signed, or the outcome that the record deserves."""
    if record["edge"] != edge or record["region"] != parent_of(edge):
        return "wrong_region"
    payload = record["aggregate"]
    try:
        if encoding.version_of(payload) != WINDOW_VERSION:
            return "undecodable"
        window = encoding.decode(payload, WINDOW, canonical=canonical)
    except Undecodable:
        return "undecodable"
    width, data = record["width"], record["sums"]
    if width not in range(1, 9) or len(data) % width or bool(data) != (window["accepted"] != 0):
        return "undecodable"
    sums = [int.from_bytes(data[at : at + width], "little", signed=True) for at in range(0, len(data), width)]
    if width != width_of(sums):
        return "undecodable"
    named = sha256(b"".join(one.to_bytes(8, "little", signed=True) for one in sums)) if sums else ""
    if named != window["sum_sha256"]:
        return "undecodable"
    return Heard(window, sha256(payload), sums or None)


def parent_of(edge: str) -> str:
    """Whose log an edge publishes to."""
    return edge.rpartition(".")[0]


def width_of(sums: list[int]) -> int:
    """The fewest bytes that hold each of them; 1 for none."""
    return next(
        width
        for width in range(1, 9)
        if all(-(1 << 8 * width - 1) <= one < 1 << 8 * width - 1 for one in sums)
    )


# -- judging


def refusal_of(
    heard: Heard, before: int, goes_by: tuple[dict[str, Any], str], at: tuple[int, int, int], task: Task
) -> str:
    """The outcome that a window in its turn, of a base that is welcome, is refused with; "" where it counts.

    ``before``: how many updates of the edge counted at the partition's version; ``goes_by``: the policy in force, and
    its hash; ``at``: the partition's version, the oldest base that it may welcome, and its floor.
    """
    window, (policy, policy_sha256), version = heard.record, goes_by, at[0]
    if window["policy_sha256"] != policy_sha256:
        return "bad_aggregate"
    if before + window["accepted"] > policy["edges"]["updates_max"]:
        return "over_share"
    fits = _counts_fit(window) and _bases_fit(window, policy, at) and _histograms_fit(window, policy)
    if not fits or not _sums_fit(heard, task) or _too_long(heard, policy, task):
        return "bad_aggregate"
    late = version - window["version"]
    return "too_stale" if late > 0 and task.buffers else ""


def _counts_fit(window: dict[str, Any]) -> bool:
    names = ("accepted", "weight_total", "staleness_total", "staleness_max", "update_bytes")
    if any(number < 0 for number in (*(window[name] for name in names), *window["counts"].values())):
        return False
    own, below = (window["counts"].get(outcome, 0) for outcome in ("accepted", "aggregated"))
    return bool(window["accepted"] == own or (below > 0 and window["accepted"] > own))


def _bases_fit(window: dict[str, Any], policy: dict[str, Any], at: tuple[int, int, int]) -> bool:
    staleness, said, base = policy["staleness"], window["bases"], window["version"]
    version, welcome, floor = at
    oldest = max(floor, welcome - staleness["versions_max"], version - LIVE_MAX)
    weights, below = staleness["weights"], window["counts"].get("aggregated", 0) > 0
    for one in said:
        if not oldest <= one["base"] <= base or one["accepted"] < 1:
            return False
        most = WEIGHT_ONE if below else weights[min(base - one["base"], len(weights) - 1)]
        if not 1 <= one["weight"] <= one["accepted"] * most:
            return False
    late = [base - one["base"] for one in said]
    totals = {
        "accepted": sum(one["accepted"] for one in said),
        "weight_total": sum(one["weight"] for one in said),
        "staleness_total": sum(one["accepted"] * by for one, by in zip(said, late, strict=True)),
        "staleness_max": max(late, default=0),
    }
    buckets = [{"accepted": window["accepted"], "weight": window["weight_total"]}]
    ascend = all(one["base"] < other["base"] for one, other in pairwise(said))
    return (
        ascend
        and all(window[name] == total for name, total in totals.items())
        and window["buckets"] == buckets
    )


def _histograms_fit(window: dict[str, Any], policy: dict[str, Any]) -> bool:
    accepted = window["accepted"]
    for name, buckets in BUCKETS.items():
        rows = [(one["bucket"], one["count"]) for one in window[name]]
        ascend = all(one[0] < other[0] for one, other in pairwise(rows))
        if not ascend or len(rows) > accepted:
            return False
        if any(bucket not in buckets or count < LEAST_COUNT for bucket, count in rows):
            return False
    counts = {name: [one["count"] for one in window[name]] for name in BUCKETS}
    counted = SHARE_UNIT * accepted
    if policy["shares"]["per_version"]:
        units = [SHARE_UNIT // min(one["bucket"], 8) for one in window["shares"]]
        pairs = list(zip(counts["shares"], units, strict=True))
        if (
            any(count % unit for count, unit in pairs)
            or sum(count // unit for count, unit in pairs) != accepted
        ):
            return False
        counted = sum(counts["shares"])
    elif counts["shares"]:
        return False
    by_squares = policy["defence"]["usual_norm_by"] == "squares"
    most = counted * (SQUARES if by_squares else 1)
    return bool(sum(counts["norms"]) <= most and sum(counts["cosines"]) <= counted)


def _sums_fit(heard: Heard, task: Task) -> bool:
    sums, window = heard.sums, heard.record
    if sums is None:
        return True
    if len(sums) != task.sum_elements:
        return False
    most, furthest = window["accepted"] << 32, window["weight_total"] * LARGEST
    at = task.parameters
    for tensor in task.buffers:
        for _ in range(tensor.end - tensor.begin):
            digits = sums[at : at + 10]
            whole = sum(digit << 32 * k for k, digit in enumerate(digits))
            if max(map(abs, digits)) > most or abs(whole) > furthest or (tensor.nonnegative and whole < 0):
                return False
            at += 10
    return True


def _too_long(heard: Heard, policy: dict[str, Any], task: Task) -> bool:
    if heard.sums is None:
        return False
    sections = [(heard.sums[: task.parameters], policy["updates"]["norm_clip"])]
    if task.control:
        sections.append((heard.sums[task.parameters + task.digits :], rule_of(policy)["norm_clip"]))
    accepted, total = heard.record["accepted"], heard.record["weight_total"]
    unit = 2 ** policy["fixed_point"]["exponent"]
    return any(
        is_longer(sums, math.ceil(clip * unit), accepted=accepted, weight_total=total)
        for sums, clip in sections
    )


def weight_bound(accepted: int, weight_total: int) -> int:
    """What so many updates weighed at most before lateness and edges rounded their weights, in 1/65536."""
    return min(weight_total + 8 * accepted, accepted * WEIGHT_ONE)


def is_longer(sums: list[int], clip: int, *, accepted: int, weight_total: int) -> bool:
    """Whether sums, in units, are longer than so many updates of the norm ``clip`` come to."""
    reach = -(-weight_bound(accepted, weight_total) * clip // WEIGHT_ONE)
    whole = reach + reach // 2**50 + 1
    largest = max(map(abs, sums))
    if largest > whole + 129 * accepted:
        return True
    k = max(0, largest.bit_length() - 24)
    root = math.isqrt(len(sums)) + 1
    bound = whole + (129 * accepted + 2**k) * root
    return bool(sum((one >> k) ** 2 for one in sums) * 4**k > bound**2)


def scaled(sums: list[int], weight: int) -> Ints:
    """What lateness leaves of a window's sums, int64[n]: each rounded by itself, halves up."""
    return np.array([(one * weight + WEIGHT_ONE // 2) // WEIGHT_ONE for one in sums], dtype=np.int64)


def bounded_weight(policy: dict[str, Any], accepted: int, weight_total: int) -> int:
    """The weight by which the sums of a window are bounded: of one that may hold windows of edges a little more."""
    return weight_bound(accepted, weight_total) if knows_edges(policy) else weight_total
