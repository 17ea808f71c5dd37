"""The audit button: the replay of ``fluvial audit``, in a process of its own, one at a time, ended with the console."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import fluvial.processes.tether
from backends.environment import child_environment
from fluvial.console.limits import (
    AUDIT_END_S,
    AUDIT_OUTPUT_BYTES_MAX,
    AUDIT_SECONDS_MAX,
    AUDITS_KEPT,
    FINDINGS_SHOWN,
    TEXT_CHARACTERS_MAX,
)
from fluvial.console.problems import audit_runs, nothing_there

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("fluvial.console")

State = Literal["running", "identical", "differs", "failed"]

_PROGRESS: Final = re.compile(rb"folded (\d+) of (\d+) records")
_RUNNING_S: Final = 1.0
_LINE_BYTES_MAX: Final = 1 << 16


@dataclass
class AuditRun:
    """One audit. ``done`` of ``total`` records are folded; None while that is not known."""

    run_id: str
    task: str
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
        seconds = time.monotonic() - self._began_s if self._seconds is None else self._seconds
        return {
            "id": self.run_id,
            "version": self.version,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "unit": "records",
            "seconds": round(seconds, 1),
            "started_ms": self.started_ms,
            "findings": self.findings,
            "findings_total": self.findings_total,
            "digest": self.digest,
            "command": self.command,
        }

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
        self.done = self.total = int(report["records"])
        self.digest = str(report["digest"])
        self.findings_total = int(report["findings_total"])
        self.findings = [_finding(one) for one in report["findings"][:FINDINGS_SHOWN]]
        self.end("identical" if report["identical"] is True else "differs")


def _finding(one: dict[str, Any]) -> str:
    named = ("error_id", "id", "what", "where", "field", "expected", "got", "detail")
    words = [f"{name} {one[name]}" for name in named if one.get(name)]
    return ", ".join(words) if words else json.dumps(one, sort_keys=True)


class Audits:
    """The runs so far, newest first in answers, and the one that runs. Used in the loop's thread only."""

    def __init__(self, home: Path, command: str, changed: Callable[[str, dict[str, Any]], None]) -> None:
        self._home = home
        self._command = command
        self._changed = changed
        self._runs: list[AuditRun] = []
        self._running: asyncio.Task[None] | None = None

    async def start(self, task: str, version: int) -> dict[str, Any]:
        """Begin an audit up to ``version``; UsageProblem FLV-6504 while one runs."""
        if self._running is not None and not self._running.done():
            raise audit_runs()
        command = f"{self._command} audit --task {task} --to {version}"
        run = AuditRun(secrets.token_hex(6), task, version, command)
        self._runs = [*self._runs[-AUDITS_KEPT + 1 :], run]
        self._running = asyncio.create_task(self._run(run))
        self._tell(run)
        return run.document()

    def get(self, task: str, run_id: str) -> dict[str, Any]:
        """One run; UsageProblem FLV-6503 where there is none of this id."""
        for run in self._runs:
            if run.run_id == run_id and run.task == task:
                return run.document()
        raise nothing_there(
            f"there is no audit {run_id[:40]!r} here",
            "the console keeps no audit over its end: start another one",
        )

    def newest(self, task: str, version: int) -> dict[str, Any] | None:
        """The newest run that reached a version; None where there was none."""
        found = [run for run in self._runs if run.task == task and run.version == version]
        return found[-1].document() if found else None

    def document(self, task: str) -> dict[str, Any]:
        """All runs, newest first, and the command that audits everything."""
        return {
            "runs": [run.document() for run in reversed(self._runs) if run.task == task],
            "commands": {"all": f"{self._command} audit --task {task}"},
        }

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
        self._tell(run)

    async def _replay(self, run: AuditRun) -> None:
        words = ["audit", "--task", run.task, "--to", str(run.version), "--jobs", "1", "--json"]
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
