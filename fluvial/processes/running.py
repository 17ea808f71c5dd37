"""Which processes of a task run on this machine, and how to stop them in good order."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from fluvial.processes.metrics_server import targets_folder

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.terminal.output import Reporter

STOP_S: Final = 30.0
_PARENTS: Final = frozenset({"run", "demo"})
"""Commands that start processes of a task, start them again when they die, and stop them all when they are stopped."""


@dataclass(frozen=True, slots=True)
class Running:
    """One process of a task; ``parent`` is the run that started it and would start it again, None without one."""

    pid: int
    role: str
    name: str
    parent: int | None


def running_of(home: Path, task: str) -> list[Running]:
    """Every process of ``task`` that serves metrics here and lives, by name. Each has a file that says so."""
    found = []
    for path in sorted(targets_folder(home).glob("*.json")):
        # It may go at any moment, and whoever else writes there may leave anything.
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError, psutil.Error):
            labels = json.loads(path.read_text())[0]["labels"]
            if labels["task"] != task:
                continue
            process = psutil.Process(int(path.stem.rpartition(".")[2]))
            if process.status() != psutil.STATUS_ZOMBIE and _is_of(process, str(labels["role"])):
                found.append(
                    Running(process.pid, str(labels["role"]), str(labels["process"]), _run_of(process))
                )
    return found


def stop_running(processes: list[Running], reporter: Reporter) -> list[Running]:
    """SIGTERM to each run, and to each process without one; returns those that live on after ``STOP_S`` seconds."""
    asked = {one.parent or one.pid for one in processes}
    waited = []
    for pid in sorted(asked | {one.pid for one in processes}):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            waited.append(process)
            if pid in asked:
                process.terminate()
    with reporter.waiting(f"{len(processes)} processes to end"):
        _, alive = psutil.wait_procs(waited, timeout=STOP_S)
    left = {process.pid for process in alive}
    return [one for one in processes if one.pid in left]


def _is_of(process: psutil.Process, role: str) -> bool:
    """A pid alone proves nothing: after a crash the number may belong to anybody."""
    words = process.cmdline()
    command = "audit" if role == "auditor" else role
    return any("fluvial" in word for word in words) and command in words


def _run_of(process: psutil.Process) -> int | None:
    for parent in process.parents():
        words = parent.cmdline()
        if any("fluvial" in word for word in words) and _PARENTS & set(words):
            return int(parent.pid)
    return None
