from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.observer import UNOBSERVED
from fluvial import cli
from fluvial.local.process import Daemon
from fluvial.processes.signals import EXIT_INTERRUPTED, undisturbed
from fluvial.processes.supervisor import Supervisor
from fluvial.proof.audit import pool
from fluvial.proof.audit.repeated import audit_again_and_again
from fluvial.terminal.output import quiet_output

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class InterruptedPopen(subprocess.Popen[bytes]):
    """Ctrl-C at the worst moment: the process runs, and its number has not come back yet."""

    started: list[int]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started.append(self.pid)
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    InterruptedPopen.started = []
    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)
    return InterruptedPopen.started


def test_a_signal_waits_for_the_end_of_the_block(tmp_path: Path) -> None:
    def work() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            (tmp_path / "done").touch()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (tmp_path / "done").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_daemon_whose_start_is_interrupted_is_known_and_can_be_ended(
    tmp_path: Path, interrupted: list[int]
) -> None:
    daemon = Daemon("X", tmp_path / "x.json", tmp_path / "x.log", "marker")
    with pytest.raises(KeyboardInterrupt):
        daemon.start(SLEEP)
    process = daemon.process()
    assert process is not None and [process.pid] == interrupted
    assert daemon.kill() and daemon.process() is None


def test_a_child_whose_start_is_interrupted_ends_with_its_supervisor(
    tmp_path: Path, interrupted: list[int]
) -> None:
    with Supervisor(tmp_path, tmp_path, quiet_output()) as supervisor:
        with pytest.raises(KeyboardInterrupt):
            supervisor.start_command("x", SLEEP)
        assert [supervisor.pid("x")] == interrupted and supervisor.running("x")
    assert not supervisor.running("x")


class InterruptedPool(ProcessPoolExecutor):
    """Ctrl-C while the processes are forked."""

    forked: list[int]

    def submit(self, *arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        future = super().submit(*arguments, **options)
        self.forked += self._processes
        return future


def test_an_audit_that_is_interrupted_while_it_forks_ends_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    InterruptedPool.forked = []
    monkeypatch.setattr(pool, "ProcessPoolExecutor", InterruptedPool)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), pool.Folders(2):
            pytest.fail("the signal was lost")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(InterruptedPool.forked) == 2
    assert not any(psutil.pid_exists(pid) for pid in InterruptedPool.forked)


def noticed_late() -> Any:
    """What the interpreter makes of a KeyboardInterrupt that a C function had left behind."""
    raise SystemError("<built-in function monotonic> returned a result with an exception set") from (
        KeyboardInterrupt()
    )


def broken() -> Any:
    raise SystemError("something else")


def test_an_interruption_that_is_noticed_late_ends_repeated_audits_like_any_other() -> None:
    assert audit_again_and_again(noticed_late, every_s=0.0, output=quiet_output(), observer=UNOBSERVED) == 0
    with pytest.raises(SystemError, match="something else"):
        audit_again_and_again(broken, every_s=0.0, output=quiet_output(), observer=UNOBSERVED)


def test_an_interruption_that_is_noticed_late_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.cli, "main", lambda *_, **__: noticed_late())
    assert cli.main(["status"]) == EXIT_INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
