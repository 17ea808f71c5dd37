"""Down through edges: each window of an edge that a log took is what the edge's own log gives (invariant 4).

An edge whose log is not among those at hand is named in the report: what it published is believed as far as the log
above it could judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fluvial.proof.checker.derived import Logs, read_derived, topic_of, whole
from fluvial.proof.checker.fold import Partition
from fluvial.proof.checker.partitions import PartitionResult, skips_in
from fluvial.proof.checker.report import Findings, Slot
from fluvial.proof.checker.task import Damaged, Shelf
from fluvial.proof.checker.vouched import Heads

Chains = Mapping[str, Mapping[int, str]]
"""Of each edge the hashes of its windows, by sequence."""


def check_edges(
    logs: Logs,
    shelf: Shelf,
    partitions: Mapping[Slot, PartitionResult],
    findings: Findings,
    *,
    heads: Heads,
    revoked: Mapping[str, int],
) -> None:
    """Walk down from every partition, any depth; problems go to the findings."""
    walk = _Walk(logs, shelf, findings, heads, revoked)
    waiting: list[tuple[str, Chains]] = [(one.name, one.chains) for one in partitions.values()]
    while waiting:
        above, chains = waiting.pop()
        for edge, chain in sorted(chains.items()):
            if (topic_of(shelf.task.name, "updates", edge), 0) not in logs:
                findings.unseen_edges.append(edge)
            else:
                waiting.append((edge, walk.down(above, edge, chain)))


@dataclass(frozen=True, slots=True)
class _Walk:
    """What every edge is looked at with."""

    logs: Logs
    shelf: Shelf
    findings: Findings
    heads: Heads
    revoked: Mapping[str, int]

    def down(self, above: str, edge: str, chain: Mapping[int, str]) -> Chains:
        """Fold an edge's log, and hold its windows against those that were heard ``above``; the edges below it."""
        fold = Partition(self.shelf, (edge, 0))
        windows = self._windows_of(fold)
        for sequence, sha256 in sorted(chain.items()):
            what = f"window {sequence} of {edge} in {above}"
            if sequence >= len(windows):
                self.findings.violate(4, f"{what}: its own log closes no such window")
            elif windows[sequence] != sha256:
                self.findings.violate(4, f"{what} is {sha256}, its own log gives {windows[sequence]}")
        return fold.edges.chains

    def _windows_of(self, fold: Partition) -> list[str]:
        """The hashes of all windows that an edge's log closes; the fold has gone through it then."""
        task, slot = self.shelf.task, (fold.region, fold.partition)
        derived = read_derived(
            self.logs, self.heads, task, slot, Findings(), strangers=True, revoked=self.revoked
        )
        any_skipped = derived.skipped or any(head.skipped for head in derived.heads)
        skips = skips_in(self.logs, self.shelf, slot, derived) if any_skipped else set[int]()
        windows = []
        log = self.logs.get((topic_of(task.name, "updates", fold.region), 0), ())
        for offset, timestamp_ms, _, value in whole(log):
            try:
                folded = fold.take(timestamp_ms, value, skipped=offset in skips)
            except Damaged as damage:
                where = f"the log of {fold.region} cannot be folded beyond offset {offset}"
                self.findings.violate(4, f"{where}: {damage}")
                break
            if folded.closed is not None:
                windows.append(folded.closed.sha256)
        return windows
