"""Which processes of a task run here, and stopping them: nobody else's, and a run instead of its children."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from fluvial.processes.metrics_server import targets_folder
from fluvial.processes.running import running_of, stop_running
from fluvial.terminal.output import quiet_output
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
RUN = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}, 'fluvial', 'worker'])
signal.signal(15, lambda *_: child.terminate())
child.wait()
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def one(code: str, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        return process

    yield one
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def told(
    home: Path, pid: int, *, task: str = "mine", role: str = "worker", name: str = "worker-eu-0"
) -> None:
    folder = targets_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"task": task, "role": role, "process": name}
    text = json.dumps([{"targets": ["127.0.0.1:1"], "labels": labels}])
    (folder / f"{task}-{name}.{pid}.json").write_text(text)


def test_a_process_is_found_by_its_file_and_stopped(tmp_path: Path, start: Start) -> None:
    process = start(SLEEP, "fluvial", "worker")
    told(tmp_path, process.pid)
    (found,) = running_of(tmp_path, "mine")
    assert (found.pid, found.role, found.name, found.parent) == (process.pid, "worker", "worker-eu-0", None)
    assert running_of(tmp_path, "min") == [] == running_of(tmp_path, "mine-2")
    assert stop_running([found], quiet_output()) == []
    assert not psutil.pid_exists(process.pid)
    assert running_of(tmp_path, "mine") == []


def test_a_number_that_belongs_to_somebody_else_is_not_touched(tmp_path: Path, start: Start) -> None:
    stranger = start(SLEEP, "something", "else")
    told(tmp_path, stranger.pid)
    other_role = start(SLEEP, "fluvial", "merger")
    told(tmp_path, other_role.pid, name="worker-eu-1")
    told(tmp_path, 2**22 + 1, name="long-gone")
    (targets_folder(tmp_path) / "garbage.1.json").write_text("[]")
    assert running_of(tmp_path, "mine") == []


def test_of_a_run_the_run_is_stopped_which_stops_its_children(tmp_path: Path, start: Start) -> None:
    run = start(RUN, "fluvial", "run", "mine.py")
    (child,) = until(lambda: psutil.Process(run.pid).children(), "the child")
    told(tmp_path, child.pid)
    (found,) = running_of(tmp_path, "mine")
    assert found.parent == run.pid
    assert stop_running([found], quiet_output()) == []
    assert not psutil.pid_exists(run.pid) and not child.is_running()
