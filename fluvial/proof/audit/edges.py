"""The audit walks down: each edge that a log heard is folded again from its own log, and so on below it.

What the log above holds of an edge has to be what the edge's log gives, hash by hash. What an edge cannot be seen to do
from above is looked for here: barriers and Revokes that it should have copied. An edge whose log cannot be reached is
named; that it was not walked is a finding where that is demanded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from aggregation.errors import ConnectionProblem, TimeoutProblem, UsageProblem
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.folded import FoldedPartition, HeardWindow
from fluvial.proof.audit.partitions import PartitionJob
from fluvial.proof.audit.sources import OpenSources
from fluvial.proof.audit.verdicts import bound_of
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic

WINDOW: Final = "FLV-5024"
REVOKE: Final = "FLV-5025"
BARRIER: Final = "FLV-5026"
NOT_WALKED: Final = "FLV-5027"
Fold = Callable[[list[PartitionJob]], list[FoldedPartition]]


@dataclass(frozen=True, slots=True)
class EdgesAsked:
    """Where edges' logs are, by name (others are where the audit reads), and whether each has to be walked."""

    sources: Mapping[str, OpenSources] = field(default_factory=dict)
    demanded: bool = False


class NotWalked(NamedTuple):
    """An edge whose log was not folded, and why."""

    edge: str
    because: str


@dataclass(frozen=True, slots=True)
class Walked:
    """What was found below the regions: the edges' logs, folded, and edges that were not walked."""

    partitions: tuple[FoldedPartition, ...] = ()
    left: tuple[NotWalked, ...] = ()


class EdgeWalk:
    """Walks down from folded partitions. ``fold`` folds jobs and takes their findings."""

    def __init__(
        self,
        sources: OpenSources,
        asked: EdgesAsked,
        *,
        task: str,
        genesis_sha256: str,
        folder: Path,
        findings: Findings,
        fold: Fold,
    ) -> None:
        self._sources = sources
        self._asked = asked
        self._task = task
        self._genesis_sha256 = genesis_sha256
        self._folder = folder
        self._findings = findings
        self._fold = fold

    def run(self, partitions: Sequence[FoldedPartition], revoked: Mapping[str, int]) -> Walked:
        """Fold every edge below ``partitions``; ``revoked`` as in ``PartitionJob``."""
        walked: list[FoldedPartition] = []
        left: list[NotWalked] = []
        above = list(partitions)
        while True:
            parents = {edge: one for one in above for edge in sorted(one.edges)}
            jobs = []
            for edge, parent in sorted(parents.items()):
                job = self._job(edge, parent, revoked)
                if isinstance(job, NotWalked):
                    left.append(job)
                    self._say_left(job, parent)
                else:
                    jobs.append(job)
            if not jobs:
                return Walked(tuple(walked), tuple(left))
            above = self._fold(jobs)
            for one in above:
                self._compare(one, parents[one.slot[0]])
            walked += above

    def _job(
        self, edge: str, parent: FoldedPartition, revoked: Mapping[str, int]
    ) -> PartitionJob | NotWalked:
        opened = self._asked.sources.get(edge, self._sources)
        topics = [named(self._task, edge) for named in (aggregates_topic, verdicts_topic, updates_topic)]
        try:
            with opened().open_reader(f"fluvial-audit-{self._task}-{edge}") as reader:
                for topic in topics:
                    reader.partitions(topic)
                aggregates = reader.bounds(topics[0], 0)[1]
                verdicts = bound_of(reader, topics[1], 0)
                updates = reader.bounds(topics[2], 0)[1]
        except (ConnectionProblem, TimeoutProblem, UsageProblem) as error:
            return NotWalked(edge, f"{error.error_id}: {error.message}")
        return PartitionJob(
            sources=opened,
            task=self._task,
            genesis_sha256=self._genesis_sha256,
            slot=(edge, 0),
            start=None,
            updates_end=updates,
            aggregates_end=aggregates,
            sequence_stop=None,
            sequence_needed=max(parent.edges[edge]) + 1,
            spill=self._folder,
            verdicts=verdicts,
            revoked=revoked,
        )

    def _say_left(self, left: NotWalked, parent: FoldedPartition) -> None:
        if self._asked.demanded:
            self._findings.add(
                NOT_WALKED,
                f"edge {left.edge}",
                self._above(parent),
                "log",
                expected="a log that can be folded",
                got=left.because,
            )

    def _compare(self, edge: FoldedPartition, parent: FoldedPartition) -> None:
        if edge.complete:
            self._compare_windows(edge, parent, parent.edges[edge.slot[0]])
            self._compare_barriers(edge, parent)
            self._compare_revokes(edge, parent)

    def _compare_windows(
        self, edge: FoldedPartition, parent: FoldedPartition, heard: Mapping[int, HeardWindow]
    ) -> None:
        given = {one.sequence: one.sha256 for one in edge.aggregates}
        for sequence, window in sorted(heard.items()):
            own = given.get(sequence, "no such window in its log")
            if own != window.sha256:
                what = f"window {sequence} of edge {edge.slot[0]}"
                where = f"{self._above(parent)}@{window.offset}"
                self._findings.add(WINDOW, what, where, "sha256", expected=own, got=window.sha256)

    def _compare_barriers(self, edge: FoldedPartition, parent: FoldedPartition) -> None:
        said = {seen.barrier.version: seen.barrier.manifest_sha256 for seen in reversed(parent.barriers)}
        for seen in edge.barriers:
            one = seen.barrier
            expected = said.get(one.version, one.manifest_sha256)
            if one.manifest_sha256 != expected:
                what, where = f"barrier to version {one.version} of edge {edge.slot[0]}", self._own(edge)
                field_name = "manifest_sha256"
                at = f"{where}@{seen.offset}"
                self._findings.add(BARRIER, what, at, field_name, expected=expected, got=one.manifest_sha256)

    def _compare_revokes(self, edge: FoldedPartition, parent: FoldedPartition) -> None:
        """Above, a Revoke stands before the barriers behind it; in the edge's log as well, or it was held back."""
        newest = max((window.version for window in parent.edges[edge.slot[0]].values()), default=0)
        obeyed: dict[str, int] = {}
        for one in edge.revokes:
            obeyed.setdefault(one.name, one.version)
        for one in parent.revokes:
            if newest <= one.version or obeyed.get(one.name, newest) <= one.version:
                continue
            got = f"obeyed from version {obeyed[one.name]}" if one.name in obeyed else "not in its log"
            self._findings.add(
                REVOKE,
                f"Revoke of {one.name} in the log of edge {edge.slot[0]}",
                f"{self._above(parent)}@{one.offset}",
                "place",
                expected=f"before the barrier to version {one.version + 1}",
                got=got,
            )

    def _above(self, parent: FoldedPartition) -> str:
        return f"{updates_topic(self._task, parent.slot[0])}[{parent.slot[1]}]"

    def _own(self, edge: FoldedPartition) -> str:
        return f"{updates_topic(self._task, edge.slot[0])}[{edge.slot[1]}]"
