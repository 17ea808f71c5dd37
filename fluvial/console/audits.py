"""The audit button: the replay of ``fluvial audit``, in a process of its own, one at a time, ended with the console.

What has ended is in the task's history (``fluvial.reading.audit_history``), which outlives the console, and has what
a shell has audited as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fluvial.processes.tether
from backends.environment import child_environment
from fluvial.console.limits import (
    AUDIT_END_S,
    AUDIT_OUTPUT_BYTES_MAX,
    AUDIT_SECONDS_MAX,
    AUDITS_KEPT,
    TEXT_CHARACTERS_MAX,
)
from fluvial.console.problems import audit_runs, nothing_there
from fluvial.reading.audit_history import AuditRecord, State, new_id, read_history, record_of, remember

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("fluvial.console")

_PROGRESS: Final = re.compile(rb"read (\d+) of (\d+) records")
_RUNNING_S: Final = 1.0
_LINE_BYTES_MAX: Final = 1 << 16


@dataclass
class AuditRun:
    """One audit. ``done`` of ``total`` records are read, updates and verdicts; None while that is not known."""

    run_id: str
    task: str
    genesis_sha256: str
    version: int
    command: str
    state: State = "running"
    done: int | None = None
    total: int | None = None
    findings: list[str] = field(default_factory=list)
    findings_total: int = 0
    digest: str | None = None
    started_ms: int = field(default_factory=lambda: round(time.time() * 1000))
    _began_s: float = field(default_factory=time.monotonic)
    _seconds: float | None = None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return _document(self.record(), self.state, self.done, self.total)

    def record(self) -> AuditRecord:
        """What is kept of it."""
        seconds = time.monotonic() - self._began_s if self._seconds is None else self._seconds
        return AuditRecord(
            id=self.run_id,
            genesis_sha256=self.genesis_sha256,
            version=self.version,
            state=self.state,
            records=self.done or 0,
            seconds=round(seconds, 1),
            started_ms=self.started_ms,
            findings=tuple(self.findings),
            findings_total=self.findings_total,
            digest=self.digest,
            command=self.command,
        )

    def end(self, state: State) -> None:
        """It has ended so."""
        self.state = state
        self._seconds = time.monotonic() - self._began_s

    def take(self, report: dict[str, Any]) -> None:
        """What ``fluvial audit --json`` has written: a report, or an error."""
        error = report.get("error")
        if isinstance(error, dict):
            self.findings = [f"{error.get('id')}: {error.get('message')}"]
            self.end("failed")
            return
        found = record_of(report, run_id=self.run_id, command=self.command)
        self.done = self.total = found.records
        self.digest, self.findings_total = found.digest, found.findings_total
        self.findings = list(found.findings)
        self.end(found.state)


def _document(one: AuditRecord, state: State, done: int | None, total: int | None) -> dict[str, Any]:
    return {
        "id": one.id,
        "first": one.first,
        "version": one.version,
        "state": state,
        "done": done,
        "total": total,
        "unit": "records",
        "seconds": one.seconds,
        "started_ms": one.started_ms,
        "findings": list(one.findings),
        "findings_total": one.findings_total,
        "digest": one.digest,
        "command": one.command,
    }


class Audits:
    """The runs so far, newest first in answers, and the one that runs. Used in the loop's thread only.

    ``genesis_of`` gives the genesis document's hash of a task: a task made anew under a name has no past.
    """

    def __init__(
        self,
        home: Path,
        command: str,
        changed: Callable[[str, dict[str, Any]], None],
        genesis_of: Callable[[str], str],
    ) -> None:
        self._home = home
        self._genesis_of = genesis_of
        self._command = command
        self._changed = changed
        self._runs: list[AuditRun] = []
        self._running: asyncio.Task[None] | None = None

    async def start(self, task: str, version: int) -> dict[str, Any]:
        """Begin an audit up to ``version``; UsageProblem FLV-6504 while one runs."""
        if self._running is not None and not self._running.done():
            raise audit_runs()
        command = f"{self._command} audit --task {task} --to {version}"
        run = AuditRun(new_id(), task, self._genesis_of(task), version, command)
        self._runs = [*self._runs[-AUDITS_KEPT + 1 :], run]
        self._running = asyncio.create_task(self._run(run))
        self._tell(run)
        return run.document()

    def get(self, task: str, run_id: str) -> dict[str, Any]:
        """One run; UsageProblem FLV-6503 where there is none of this id."""
        for run in self._all(task):
            if run["id"] == run_id:
                return run
        raise nothing_there(
            f"there is no audit {run_id[:40]!r} here",
            f"the newest {AUDITS_KEPT} are kept: start another one",
        )

    def newest(self, task: str, version: int) -> dict[str, Any] | None:
        """The newest run that reached a version; None where there was none."""
        return next((run for run in self._all(task) if run["version"] == version), None)

    def document(self, task: str) -> dict[str, Any]:
        """All runs, newest first, and the command that audits everything."""
        return {
            "runs": self._all(task)[:AUDITS_KEPT],
            "commands": {"all": f"{self._command} audit --task {task}"},
        }

    def _all(self, task: str) -> list[dict[str, Any]]:
        """Those of this console and those that are kept, each once, newest first."""
        runs = {one.id: _document(one, one.state, one.records, one.records) for one in self._kept(task)}
        runs |= {run.run_id: run.document() for run in self._runs if run.task == task}
        return sorted(runs.values(), key=lambda one: int(one["started_ms"]), reverse=True)

    def _kept(self, task: str) -> list[AuditRecord]:
        return read_history(self._home, task, self._genesis_of(task))

    async def close(self) -> None:
        """End the one that runs."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def _tell(self, run: AuditRun) -> None:
        self._changed(run.task, run.document())

    async def _run(self, run: AuditRun) -> None:
        try:
            async with asyncio.timeout(AUDIT_SECONDS_MAX):
                await self._replay(run)
        except asyncio.CancelledError:
            run.end("failed")
            raise
        except TimeoutError:
            run.findings = [f"it did not end within {AUDIT_SECONDS_MAX:.0f} s: run `{run.command}`"]
            run.end("failed")
        except Exception as error:  # a defect of one run: told there and in the log, never the console's end
            log.exception("the audit %s failed", run.run_id)
            run.findings = [f"{type(error).__name__}: {error}"[:TEXT_CHARACTERS_MAX]]
            run.end("failed")
        problem = await asyncio.to_thread(remember, self._home, run.task, run.record())
        if problem:
            log.warning("the audit %s is not kept: %s", run.run_id, problem)
        self._tell(run)

    async def _replay(self, run: AuditRun) -> None:
        words = [
            "audit",
            "--task",
            run.task,
            "--to",
            str(run.version),
            "--jobs",
            "1",
            "--json",
            "--run-id",
            run.run_id,
        ]
        process = await asyncio.create_subprocess_exec(
            # tethered: a console that is killed leaves no audit behind
            *(sys.executable, "-I", "-S", str(Path(fluvial.processes.tether.__file__)), str(os.getpid())),
            *(sys.executable, "-P", "-m", "fluvial.cli", "--home", str(self._home), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            process_group=0,
            limit=_LINE_BYTES_MAX,
        )
        try:
            said, heard, _ = await asyncio.gather(
                _all_of(process.stdout), self._progress(run, process.stderr), self._ticking(run, process)
            )
        finally:
            await _end(process)
        self._conclude(run, said, heard)

    def _conclude(self, run: AuditRun, said: bytes, heard: str) -> None:
        try:
            run.take(json.loads(said))
        except (ValueError, KeyError, TypeError):
            run.findings = [heard[-TEXT_CHARACTERS_MAX:] or "it ended without a report"]
            run.end("failed")

    async def _progress(self, run: AuditRun, stream: asyncio.StreamReader | None) -> str:
        """Follow what it says of its progress; its last line."""
        last = ""
        assert stream is not None, "it was started with a pipe"
        while line := await stream.readline():
            found = _PROGRESS.search(line)
            if found:
                run.done, run.total = int(found[1]), int(found[2])
                self._tell(run)
            else:
                last = line.decode("utf-8", "replace").strip() or last
        return last

    async def _ticking(self, run: AuditRun, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            self._tell(run)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _RUNNING_S)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None, "it was started with a pipe"
    data = bytearray()
    while piece := await stream.read(_LINE_BYTES_MAX):
        data += piece
        if len(data) > AUDIT_OUTPUT_BYTES_MAX:
            raise ValueError(f"its report is larger than {AUDIT_OUTPUT_BYTES_MAX} bytes")
    return bytes(data)


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to it and all that it started, a bounded wait, SIGKILL."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), AUDIT_END_S)
            return


def _environment() -> dict[str, str]:
    """Ours, able to import what we import."""
    environment = child_environment()
    root = str(Path(fluvial.processes.tether.__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    environment["OMP_NUM_THREADS"] = "1"
    return environment
