"""What a process is called where it is watched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What a process is called where it is watched: ``role`` is worker, merger, evaluator, guardian, fleet, canary or
    auditor.

    ``key`` is the file of its key and certificate, where it has one.
    """

    task: str
    role: str
    name: str
    region: str = ""
    key: Path | None = None
