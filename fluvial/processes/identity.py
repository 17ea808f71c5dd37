"""What a process is called where it is watched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What a process is called where it is watched: ``role`` is worker, merger, evaluator, guardian, fleet, canary or
    auditor.

    ``certificate`` is its own, DER; b"" where it has none.
    """

    task: str
    role: str
    name: str
    region: str = ""
    certificate: bytes = b""
