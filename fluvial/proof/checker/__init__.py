"""The offline check: eight invariants over a task's logs and objects, by a reader that shares no code with the workers.

It is written from the documents, plainly and slowly: nothing here imports the fold, the merge, the codecs or the
adapters that it checks (an import contract holds it to that). What it shares with them are the schema files, which are
the contract, and third-party libraries.

1. Every acknowledged update has exactly one verdict; every accepted one is in exactly one version or still waiting.
2. Version n names version n-1's manifest: one chain, and everything that mergers signed agrees with it.
3. Windows tile every partition: no gap, no overlap.
4. Verdicts, weights, sums, models and optimizer states recompute bit for bit, down through the logs of edges.
5. Every snapshot is the state at its offset: a replay from it is a replay from offset 0.
6. Nobody is told of a version that is not committed, nor before its barrier stands in every partition of the region.
7. After healing everything drains: each offset has a verdict, each window that closed its record.
8. Verdicts stand for offsets that the log has, for all of them that published windows cover, and say what it gives.
"""

from __future__ import annotations

from fluvial.proof.checker.check import CheckRequest, check, check_logs
from fluvial.proof.checker.reading import ReadingFailed, StoreAddress
from fluvial.proof.checker.report import Acknowledged, CheckReport, Violation

__all__ = [
    "Acknowledged",
    "CheckReport",
    "CheckRequest",
    "ReadingFailed",
    "StoreAddress",
    "Violation",
    "check",
    "check_logs",
]
