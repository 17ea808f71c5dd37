"""Which audits of a task there were on this machine, whoever ran them: kept in the task's folder, the newest few.

It is for looking: what it says proves nothing to anybody else, and an audit can be repeated at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from backends.tasks import task_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

State = Literal["running", "identical", "differs", "failed"]

FILE: Final = "audits.json"
KEPT: Final = 20
"""Audits of one task; the oldest are forgotten, but for the newest that proves the most."""
FINDINGS_SHOWN: Final = 20
TEXT_CHARACTERS_MAX: Final = 400
BYTES_MAX: Final = 1 << 20
FORMAT: Final = 1


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One audit of the versions ``first`` to ``version`` that has ended; times in ms since 1970 UTC."""

    id: str
    genesis_sha256: str
    version: int
    state: State
    first: int = 1
    records: int = 0
    seconds: float = 0.0
    started_ms: int = 0
    findings: tuple[str, ...] = ()
    findings_total: int = 0
    digest: str | None = None
    command: str = ""

    @property
    def proves(self) -> bool:
        """Whether everything from the genesis document up to ``version`` was found identical."""
        return self.state == "identical" and self.first <= 1

    @property
    def ended_ms(self) -> int:
        """When it ended."""
        return self.started_ms + round(self.seconds * 1000)


class _Kept(msgspec.Struct, frozen=True):
    format: int
    runs: tuple[AuditRecord, ...]


def new_id() -> str:
    """A name for an audit."""
    return secrets.token_hex(6)


def record_of(report: Mapping[str, Any], *, run_id: str, command: str) -> AuditRecord:
    """From the document of an audit's report. KeyError, TypeError or ValueError: it is none."""
    total = int(report["findings_total"])
    seconds = float(report["seconds"])
    return AuditRecord(
        id=run_id,
        genesis_sha256=str(report["genesis_sha256"]),
        version=int(report["to"]),
        first=int(report["from"]),
        state="identical" if report["identical"] is True else "differs",
        records=int(report["records"]),
        seconds=seconds,
        started_ms=round(time.time() * 1000 - seconds * 1000),
        findings=tuple(finding_text(one) for one in report["findings"][:FINDINGS_SHOWN]),
        findings_total=total,
        digest=str(report["digest"]),
        command=command,
    )


def finding_text(one: Mapping[str, Any]) -> str:
    """One difference in a line."""
    named = ("error_id", "id", "what", "where", "field", "expected", "got", "detail")
    words = [f"{name} {one[name]}" for name in named if one.get(name)]
    text = ", ".join(words) if words else json.dumps(dict(one), sort_keys=True)
    return text[:TEXT_CHARACTERS_MAX]


def history_path(home: Path, task: str) -> Path:
    """Where a task's audits are kept."""
    return task_folder(home, task) / FILE


def read_history(home: Path, task: str, genesis_sha256: str) -> list[AuditRecord]:
    """Those of this task, oldest first; none of a task of the same name before it, and none of a damaged file."""
    return [one for one in _read(history_path(home, task)) if one.genesis_sha256 == genesis_sha256]


def remember(home: Path, task: str, record: AuditRecord) -> str:
    """Add a record, or replace the one of its id: "", or why that could not be. No audit fails for it."""
    path = history_path(home, task)
    if not path.parent.is_dir():
        return ""  # a task that this machine only audits
    try:
        with _locked(path):
            runs = [one for one in _read(path) if one.id != record.id]
            kept = _bounded(sorted([*runs, record], key=lambda one: one.started_ms))
            part = path.with_name(f"{FILE}.part")
            part.write_bytes(msgspec.json.format(msgspec.json.encode(_Kept(FORMAT, kept)), indent=2))
            part.replace(path)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror or error}"
    return ""


def last_proven(records: list[AuditRecord]) -> AuditRecord | None:
    """The audit that proves the most versions, of those the newest; None where there is none."""
    return max(
        (one for one in records if one.proves), key=lambda one: (one.version, one.started_ms), default=None
    )


def disproved(records: list[AuditRecord]) -> AuditRecord | None:
    """The newest audit that found a difference, unless a later one proves as much; None where there is none."""
    later: list[AuditRecord] = []
    for one in sorted(records, key=lambda record: record.started_ms, reverse=True):
        if one.state == "differs":
            return None if any(proof.version >= one.version for proof in later) else one
        later += [one] if one.proves else []
    return None


def _bounded(runs: list[AuditRecord]) -> tuple[AuditRecord, ...]:
    proof = last_proven(runs)
    kept = runs[-KEPT:]
    return (proof, *kept[1:]) if proof is not None and proof not in kept else tuple(kept)


def _read(path: Path) -> tuple[AuditRecord, ...]:
    with contextlib.suppress(OSError, ValueError):  # not there, not readable, or not ours
        if path.stat().st_size <= BYTES_MAX:
            found = msgspec.json.decode(path.read_bytes(), type=_Kept)
            return found.runs if found.format == FORMAT else ()
    return ()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: an audit of the console and one of a shell may end together."""
    handle = os.open(path.with_name(f"{FILE}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
