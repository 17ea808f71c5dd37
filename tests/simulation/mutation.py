"""One mutation: the lines that hold a safeguard, what stands there without it, and where most of them are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """``edits`` are (file, old, new); each old text stands in its file exactly once."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


WORKER, OUTBOX, TICKING = (
    "stream_apps/worker/partition.py",
    "stream_apps/worker/outbox.py",
    "stream_apps/worker/ticking.py",
)
VOUCHING = "stream_apps/worker/vouching.py"
FOLD = "aggregation/fold/transition.py"
MERGER, AGGREGATES, STORE = (
    "stream_apps/merger/merger.py",
    "aggregation/server/aggregates.py",
    "backends/store/task_store.py",
)
LOOP = "            async for one in self._folding.records_through(record):\n"
ENCODING, ADMISSION = "schemas/windows.py", "aggregation/fold/admission.py"
