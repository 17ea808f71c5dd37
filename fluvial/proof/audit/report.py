"""What an audit gives: a report for people, programs and the demo."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aggregation.errors import Finding
from fluvial.proof.audit.edges import Walked
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.folded import FoldedPartition
from fluvial.proof.audit.strays import Strays, writers
from schemas.topics import aggregates_topic, models_topic, verdicts_topic


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One audit of the versions ``first`` to ``last``; ``versions`` of them could be merged again.

    ``identical`` is true when there is no finding at all. ``digest`` is the SHA-256 over every recomputed hash in a
    fixed order: two audits of the same versions have the same digest, whoever ran them, with however many processes.
    """

    task: str
    genesis_sha256: str
    first: int
    last: int
    versions: int
    digest: str
    partitions: tuple[FoldedPartition, ...]
    announcements: int
    findings: Findings
    seconds: float
    jobs: int
    announcement_strays: Strays = field(default_factory=Strays)
    edges: Walked = field(default_factory=Walked)
    """What was found below the regions."""

    @property
    def identical(self) -> bool:
        """Whether everything that was recomputed is bit for bit what was published."""
        return self.findings.total == 0

    @property
    def records(self) -> int:
        """Log records that were folded."""
        return sum(partition.records for partition in self.partitions)

    @property
    def updates(self) -> int:
        """Accepted updates among them."""
        return sum(partition.updates for partition in self.partitions)

    @property
    def windows(self) -> int:
        """Windows that were recomputed."""
        return sum(len(partition.aggregates) for partition in self.partitions)

    @property
    def verdicts_compared(self) -> int:
        """Offsets whose verdict was held against what the fold says."""
        return sum(partition.verdicts.compared for partition in self.partitions)

    @property
    def strays(self) -> dict[str, int]:
        """Records of verdicts topics that nobody vouches for and that are not what the fold says, by kind."""
        total = Counter[str]()
        for partition in self.partitions:
            total.update(partition.verdicts.strays.kinds)
        return dict(sorted(total.items()))

    @property
    def verdicts_vouched(self) -> int:
        """Offsets of whose verdicts a worker's signed head says what the fold says."""
        return sum(partition.verdicts.vouched for partition in self.partitions)

    def strays_by_topic(self) -> list[tuple[str, Strays]]:
        """All records that nobody of the task vouches for, by topic and partition, where there are any."""
        found = [(models_topic(self.task), self.announcement_strays)]
        for partition in self.partitions:
            region = partition.slot[0]
            found.append((aggregates_topic(self.task, region), partition.strays))
            found.append((verdicts_topic(self.task, region), partition.verdicts.strays))
        return [one for one in found if one[1].kinds]

    def json_document(self) -> dict[str, Any]:
        """All that ``fluvial audit --json`` prints: ``document``, the verdicts, and what strangers wrote."""
        verdicts = {
            "compared": self.verdicts_compared,
            "vouched": self.verdicts_vouched,
            "strays": self.strays,
            "partitions": [_verdicts(partition) for partition in self.partitions],
        }
        strays = [
            {
                "topic": topic,
                "kinds": dict(sorted(one.kinds.items())),
                "first": one.named,
                "written_by": writers(topic),
            }
            for topic, one in self.strays_by_topic()
        ]
        return self.document() | {"verdicts": verdicts, "strays": strays}

    def document(self) -> dict[str, Any]:
        """What follows from signed records and the store: equal for equal ranges, whoever writes verdicts meanwhile."""
        return {
            "task": self.task,
            "genesis_sha256": self.genesis_sha256,
            "from": self.first,
            "to": self.last,
            "trusted_version": self.first - 1,
            "versions": self.versions,
            "identical": self.identical,
            "digest": self.digest,
            "partitions": [_partition(partition) for partition in self.partitions],
            "records": self.records,
            "updates": self.updates,
            "announcements": self.announcements,
            "findings_total": self.findings.total,
            "findings": [difference.document() for difference in self.findings],
            "seconds": round(self.seconds, 3),
            "jobs": self.jobs,
        } | self._below()

    def _below(self) -> dict[str, Any]:
        """What was found of edges; nothing of tasks whose logs have heard of none."""
        if not (self.edges.partitions or self.edges.left):
            return {}
        return {
            "edges": [_partition(one) for one in self.edges.partitions],
            "edges_not_walked": [one._asdict() for one in self.edges.left],
        }

    def require_identical(self) -> None:
        """Raise ``Finding`` (FLV-5001), naming the first difference, unless the audit is identical."""
        if self.identical:
            return
        first = self.findings.shown[0]
        count = self.findings.total
        raise Finding(
            "FLV-5001",
            f"the audit found {count} difference{'' if count == 1 else 's'}; the first [{first.error_id}]: {first}",
            where=f"task {self.task}, versions {self.first} to {self.last}",
            hint="docs/errors/ has a page for each id; restore what was damaged from a backup, then audit again",
        )


def _verdicts(partition: FoldedPartition) -> dict[str, Any]:
    found = partition.verdicts
    return {
        "region": partition.slot[0],
        "partition": partition.slot[1],
        "compared": found.compared,
        "vouched": found.vouched,
        "records": found.records,
        "strays": dict(sorted(found.strays.kinds.items())),
        "first_strays": found.strays.named,
        "not_all_because": found.because or None,
    }


def _partition(partition: FoldedPartition) -> dict[str, Any]:
    return {
        "region": partition.slot[0],
        "partition": partition.slot[1],
        "first_offset": partition.first_offset,
        "next_offset": partition.next_offset,
        "records": partition.records,
        "updates": partition.updates,
        "aggregates": len(partition.aggregates),
        "complete": partition.complete,
    }
