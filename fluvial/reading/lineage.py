"""Which updates, with which weights, made a version: from the verdicts, or by folding its windows again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Parked, Verdict
from aggregation.fold.rejections import ACCEPTED, AGGREGATED, PARKED
from aggregation.merges import merge_named
from aggregation.policy import Policy
from aggregation.server.aggregates import Slot
from aggregation.weights.divisors import divisor_of
from aggregation.weights.fixed_point import weight_after
from aggregation.weights.staleness import WEIGHT_ONE
from fluvial.reading.parked import parked_in
from fluvial.reading.replay import (
    PartitionReplay,
    find_aggregate,
    read_aggregates,
    resume_after,
    start_of_log,
)
from fluvial.reading.task_view import TaskView
from fluvial.reading.verdicts import read_verdicts, verdict_document
from schemas.manifests import Input, Manifest, Parent
from schemas.refusals import updates_in
from schemas.topics import aggregates_topic, updates_topic
from schemas.vouching import HeadPlace


@dataclass(frozen=True, slots=True)
class Tile:
    """One window that went into a version, with the verdicts of the updates that count in it.

    ``edges`` are those of the windows of edges that count: of their updates the edges' own logs have the verdicts.
    """

    named: Input
    contributors: tuple[Verdict, ...]
    edges: tuple[Verdict, ...] = ()

    @classmethod
    def of(cls, named: Input, verdicts: Iterable[Verdict]) -> Tile:
        """With those of a window's verdicts that brought updates, by offset."""
        found = sorted(verdicts, key=lambda one: one.offset)
        counting = [one for one in found if one.outcome == ACCEPTED]
        return cls(named, tuple(counting), tuple(one for one in found if one.outcome == AGGREGATED))

    @property
    def updates(self) -> int:
        """How many updates count in it."""
        return sum(map(updates_in, (*self.contributors, *self.edges)))

    @property
    def slot(self) -> Slot:
        """Its partition."""
        return self.named.region, self.named.partition

    def __str__(self) -> str:
        return (
            f"{self.named.region}[{self.named.partition}]@{self.named.first_offset}..{self.named.next_offset}"
        )


@dataclass(frozen=True, slots=True)
class Lineage:
    """The whole origin of one version. ``problems`` says where verdicts and manifest do not agree.

    ``origin``: the version of another task that this task began from; None for one that began by itself. ``merge``: the
    merge that weighs the buckets in which updates stand besides; "" where they are simply added.
    """

    manifest: Manifest
    divisor: float
    source: str
    tiles: tuple[Tile, ...]
    problems: tuple[str, ...]
    origin: Parent | None = None
    merge: str = ""

    def share(self, tile: Tile, verdict: Verdict) -> float:
        """The factor by which this update's delta stands in the version's mean delta; 0.0 in a dropped window.

        Where there is a ``merge``, that is before it: what it leaves of a bucket is not in it.
        """
        left = tile.named.weight / WEIGHT_ONE
        return verdict.weight / WEIGHT_ONE * verdict.clip * left / self.divisor

    def lateness_of(self, tile: Tile) -> str:
        """How late a window came and what that leaves of it, for people; "" for one in time."""
        late = self.manifest.late_versions(tile.named)
        if not late or not tile.named.accepted:
            return ""
        if tile.named.is_dropped:
            return f"{tile} came {late} versions late and was dropped, with {tile.named.accepted} updates"
        left = tile.named.weight / WEIGHT_ONE
        return f"{tile} came {late} versions late and counts {left:.4f} of its weight"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        manifest = self.manifest
        return {
            "task": manifest.task,
            "version": manifest.version,
            "parent_sha256": manifest.parent_sha256,
            "origin": None if self.origin is None else msgspec.structs.asdict(self.origin),
            "model_sha256": manifest.model_sha256,
            "policy_sha256": manifest.policy_sha256,
            "accepted": manifest.accepted,
            "dropped": manifest.dropped,
            "counts": manifest.counts,
            "weight_total": manifest.weight_total / WEIGHT_ONE,
            "source": self.source,
            "merge": self.merge,
            "consistent": not self.problems,
            "problems": list(self.problems),
            "inputs": [self._tile(tile) for tile in self.tiles],
        }

    def _tile(self, tile: Tile) -> dict[str, Any]:
        named = tile.named
        return {
            "region": named.region,
            "partition": named.partition,
            "sequence": named.sequence,
            "first_offset": named.first_offset,
            "next_offset": named.next_offset,
            "accepted": named.accepted,
            "late_versions": self.manifest.late_versions(named),
            "lateness_weight": named.weight / WEIGHT_ONE,
            "dropped": named.is_dropped,
            "sha256": named.sha256,
            "contributors": [
                verdict_document(tile.slot, verdict) | {"share": self.share(tile, verdict)}
                for verdict in tile.contributors
            ],
            "edges": [verdict_document(tile.slot, verdict) for verdict in tile.edges],
        }


def lineage_of(view: TaskView, version: int, *, refold: bool) -> Lineage:
    """The lineage of a version.

    From the verdicts topic, whose counts and weights are held against the manifest; or with ``refold`` from the signed
    updates themselves, where every window's hash has to be the one that the manifest names.
    """
    manifest = view.manifest(version)
    before = (
        view.objects.manifest(version - 1).policy_sha256 if version > 1 else view.genesis.first_policy.sha256
    )
    first = view.genesis.first_policy
    policy = first if before == first.sha256 else view.objects.policy(before)
    problems: list[str] = []
    tiles: list[Tile] = []
    for slot in view.genesis.slots:
        inputs = sorted(
            (one for one in manifest.inputs if (one.region, one.partition) == slot),
            key=lambda one: one.sequence,
        )
        if inputs:
            tiles += (
                _refolded(view, version, slot, inputs, problems)
                if refold
                else _from_verdicts(view, slot, inputs, problems)
            )
    weight_total, below = sum(map(_weight_of, tiles)), any(tile.edges for tile in tiles)
    if weight_total != manifest.weight_total and not (
        problems or below
    ):  # an edge's own log says what its weigh
        problems.append(f"the updates weigh {weight_total} in all, the manifest says {manifest.weight_total}")
    return Lineage(
        manifest,
        _divisor(policy, manifest),
        "refold" if refold else "verdicts",
        tuple(tiles),
        tuple(problems),
        view.genesis.parent,
        policy.merge.kind if merge_named(policy.merge.kind).robust else "",
    )


def _weight_of(tile: Tile) -> int:
    """What a window's updates weigh in its version."""
    return weight_after(sum(verdict.weight for verdict in tile.contributors), tile.named.weight)


def _divisor(policy: Policy, manifest: Manifest) -> float:
    return divisor_of(policy.server.divide_by, updates=manifest.accepted, weight_total=manifest.weight_total)


def _from_verdicts(view: TaskView, slot: Slot, inputs: list[Input], problems: list[str]) -> Iterator[Tile]:
    for named in inputs:
        found = read_verdicts(view.reader, view.task, slot, named.first_offset, named.next_offset)
        tile = Tile.of(named, found)
        if tile.updates != named.accepted:
            problems.append(
                f"{tile}: verdicts on {tile.updates} accepted updates, the manifest says {named.accepted}"
            )
        yield tile


def _refolded(
    view: TaskView, version: int, slot: Slot, inputs: list[Input], problems: list[str]
) -> Iterator[Tile]:
    trust, objects = view.trust, view.objects
    before = _input_before(view, version, slot, inputs[0].sequence)
    if before is None:
        state = start_of_log(view.genesis, slot)
    else:
        found = find_aggregate(
            view.reader, trust, view.task, slot, sequence=before.sequence, sha256=before.sha256
        )
        state = resume_after(objects, view.genesis, found)
    replay = PartitionReplay(state, trust, objects, _parked(view, version, slot, inputs, problems))
    waiting = {one.sequence: one for one in inputs}
    counting: list[Verdict] = []
    topic, end = updates_topic(view.task, slot[0]), inputs[-1].next_offset
    for record in view.reader.read(topic, slot[1], state.next_offset, end):
        replayed = replay.step(record)
        if updates_in(replayed.verdict):
            counting.append(replayed.verdict)
        if replayed.encoded is None:
            continue
        recomputed = replayed.encoded.aggregate
        named = waiting.pop(recomputed.sequence, None)
        if named is None:
            problems.append(
                f"{slot[0]}[{slot[1]}]: the log closes window {recomputed.sequence} where the manifest has none"
            )
            continue
        tile = Tile.of(named, counting)
        if recomputed.sha256 != named.sha256:
            problems.append(
                f"{tile}: folds to {recomputed.sha256[:16]}, the manifest names {named.sha256[:16]}"
            )
        counting = []
        yield tile
    problems += [f"{slot[0]}[{slot[1]}]: the log closes no window {sequence}" for sequence in waiting]


def _parked(
    view: TaskView, version: int, slot: Slot, inputs: list[Input], problems: list[str]
) -> dict[int, Parked]:
    """The records that operators had skipped, by offset; none are looked for where the manifest counts none."""
    if not view.objects.manifest(version).counts.get(PARKED):
        return {}
    named = {one.sha256 for one in inputs}
    _, end = view.reader.bounds(aggregates_topic(view.task, slot[0]), slot[1])
    published = read_aggregates(view.reader, view.trust, view.task, slot, start=inputs[0].sequence, end=end)
    windows = {one.aggregate.sha256: one.aggregate for one in published if one.aggregate is not None}
    found = parked_in(
        view.reader,
        view.trust,
        view.task,
        HeadPlace.of(view.genesis.canonical(), slot),
        [windows[sha] for sha in sorted(named & windows.keys())],
    )
    problems += [
        f"{slot[0]}[{slot[1]}]: window {window.sequence} counts {window.counts[PARKED]} skipped records, "
        f"operators' Skips name {skips}"
        for window, skips in found.unfounded
    ]
    return found.by_offset


def _input_before(view: TaskView, version: int, slot: Slot, sequence: int) -> Input | None:
    """The input of an earlier version that ends where ``sequence`` begins; None at the beginning of the log."""
    if sequence == 0:
        return None
    for earlier in range(version - 1, 0, -1):
        for named in view.objects.manifest(earlier).inputs:
            if (named.region, named.partition, named.sequence) == (*slot, sequence - 1):
                return named
    raise IntegrityProblem(
        "FLV-5003",
        f"no version below {version} holds window {sequence - 1} of {slot[0]}[{slot[1]}]",
        hint="run `fluvial audit`: it names what is wrong with the chain of manifests",
    )
