"""What folding one partition again gives an audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from aggregation.fold.events import Barrier
from aggregation.server.aggregates import Aggregate, Slot
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.strays import Strays
from fluvial.proof.audit.verdicts import ComparedVerdicts


@dataclass(frozen=True, slots=True)
class SeenBarrier:
    """An authentic barrier of this partition, and where it stands."""

    offset: int
    barrier: Barrier


class HeardWindow(NamedTuple):
    """A window of an edge that a log heard: its SHA-256, the version it was folded at, and where it stands there."""

    sha256: str
    version: int
    offset: int


class SeenRevoke(NamedTuple):
    """What a Revoke names, at which version of the partition it stands, and at which offset."""

    name: str
    version: int
    offset: int


@dataclass(slots=True)
class FoldedPartition:
    """What folding a partition again gave. ``aggregates[i]`` has the sequence ``first_sequence`` + i.

    ``strays`` are records of the aggregates topic that are none of a worker's. ``edges`` has the windows of edges by
    sequence, those that moved the edge's place here.
    """

    slot: Slot
    first_offset: int
    next_offset: int
    first_sequence: int
    records: int = 0
    updates: int = 0
    complete: bool = False
    aggregates: list[Aggregate] = field(default_factory=list)
    barriers: list[SeenBarrier] = field(default_factory=list)
    revokes: list[SeenRevoke] = field(default_factory=list)
    edges: dict[str, dict[int, HeardWindow]] = field(default_factory=dict)
    verdicts: ComparedVerdicts = field(default_factory=ComparedVerdicts)
    strays: Strays = field(default_factory=Strays)
    findings: Findings = field(default_factory=Findings)

    @property
    def name(self) -> str:
        """``region[partition]``."""
        return f"{self.slot[0]}[{self.slot[1]}]"
