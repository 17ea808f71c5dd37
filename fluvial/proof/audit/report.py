"""What an audit gives: a report for people, programs and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aggregation.errors import Finding
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.partitions import FoldedPartition


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

    def document(self) -> dict[str, Any]:
        """For JSON."""
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
