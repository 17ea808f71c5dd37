"""The supervisor: children by pid, reported when they die, restarted within bounds, and none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.processes import supervisor as module
from fluvial.processes.metrics_server import targets_folder
from fluvial.processes.supervisor import Limits, Supervisor
from fluvial.terminal.output import Output
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 60.0


class Said(Output):
    """An output that remembers what it was told to say."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def log_of(tmp_path: Path, name: str) -> str:
    path = tmp_path / f"{name}.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def children(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(module, "BACKOFF_S", 0.02)
    with Supervisor(tmp_path, tmp_path, said) as supervisor:
        yield supervisor


SLEEP = "import time; print('up'); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"


def test_a_child_runs_until_it_is_stopped_and_writes_its_log(children: Supervisor, tmp_path: Path) -> None:
    children.start_command("one", python(SLEEP))
    until(lambda: "up" in log_of(tmp_path, "one"), "the child writes")
    pid = children.pid("one")
    assert children.running("one")
    children.stop(["one"])
    assert gone(pid)
    assert [status.state for status in children.statuses()] == ["stopped"]


def test_a_child_that_ignores_sigterm_is_killed(children: Supervisor, tmp_path: Path, said: Said) -> None:
    children.start_command("deaf", python(DEAF))
    until(lambda: "up" in log_of(tmp_path, "deaf"), "the child writes")
    pid = children.pid("deaf")
    children.stop(["deaf"], timeout_s=0.2)
    assert gone(pid)
    assert any("deaf did not end within 0.2 s" in line for line in said.lines)


@pytest.mark.parametrize(
    "code", [SLEEP, DEAF, "import time; print('up'); time.sleep(0.5); raise SystemExit(4)"]
)
def test_whoever_was_stopped_or_has_failed_is_no_scrape_target_any_more(
    tmp_path: Path, said: Said, code: str
) -> None:
    """Else a run that failed leaves an alert that somebody does not answer."""
    targets = targets_folder(tmp_path)
    targets.mkdir(parents=True)
    others = targets / "digits-other.1.json"
    others.write_text("[]")
    with contextlib.suppress(UsageProblem), Supervisor(tmp_path, tmp_path, said) as supervisor:
        supervisor.start_command("one", python(code))
        (targets / f"digits-one.{supervisor.pid('one')}.json").write_text("[]")
        until(lambda: "up" in log_of(tmp_path, "one"), "the child writes")
        deadline = time.monotonic() + WAIT_S
        while "SystemExit" in code and time.monotonic() < deadline:
            supervisor.check()  # it fails, and leaves the context by its problem
            time.sleep(0.01)
        supervisor.stop(["one"], timeout_s=0.2)
    assert list(targets.iterdir()) == [others]


def test_a_grandchild_ends_with_its_parent(children: Supervisor, tmp_path: Path) -> None:
    code = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"
    children.start_command("parent", python(code + "; print(p.pid); time.sleep(600)"))
    until(lambda: log_of(tmp_path, "parent").endswith("\n"), "the parent names its child")
    grandchild = int(log_of(tmp_path, "parent").split()[0])
    children.stop(["parent"])
    until(lambda: gone(grandchild), "the grandchild ends")


def test_a_child_that_dies_is_reported_with_its_log_and_started_again(
    children: Supervisor, tmp_path: Path, said: Said
) -> None:
    flag = tmp_path / "flag"
    code = f"import pathlib, sys, time; f = pathlib.Path({str(flag)!r}); seen = f.exists(); f.touch()"
    children.start_command("once", python(code + "\nif not seen: sys.exit('no luck')\ntime.sleep(600)"))
    first = children.pid("once")

    def again() -> bool:
        children.check()
        return children.pid("once") != first

    until(again, "it is started again")
    assert any(
        "once ended with exit code 1; starting it again" in line and "no luck" in line for line in said.lines
    )
    assert children.statuses()[0].restarts == 1


def test_a_child_that_always_dies_fails_the_run_and_names_the_cause(children: Supervisor) -> None:
    error = "error[FLV-3100]: cannot list topics"
    children.start_command("never", python(f"import sys; print({error!r}); print('hint: up'); sys.exit(2)"))

    def watch() -> bool:
        children.check()
        return False

    with pytest.raises(EnvironmentProblem, match="3 times now") as caught:
        until(watch, "the run fails")
    assert caught.value.error_id == "FLV-6301"
    assert caught.value.where == "error[FLV-3100]: cannot list topics\n  hint: up"


def test_a_child_that_dies_again_and_again_fails_the_run_however_long_it_stayed_up(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.02)
    monkeypatch.setattr(module, "START_S", 0.0)  # none of its deaths is one at its start
    with Supervisor(tmp_path, tmp_path, said, limits=Limits(restarts_max=3)) as children:
        children.start_command("tired", python("import sys; sys.exit(1)"))

        def watch() -> bool:
            children.check()
            return False

        with pytest.raises(EnvironmentProblem, match="4 times now") as caught:
            until(watch, "the run fails")
        assert caught.value.error_id == "FLV-6301"
        assert children.statuses()[0].restarts == 3


def test_a_usage_error_is_not_tried_again(children: Supervisor) -> None:
    children.start_command("wrong", python("import sys; sys.exit(4)"))
    until(lambda: not children.running("wrong"), "it ends")
    with pytest.raises(UsageProblem, match="exit code 4"):
        children.check()


def test_a_child_that_may_finish_is_done(children: Supervisor, said: Said) -> None:
    children.start_command("fleet", python("print('all published')"), may_finish=True)
    until(lambda: not children.running("fleet"), "it ends")
    children.check()
    assert children.statuses()[0].state == "done"
    assert said.lines == []


def test_kill9_and_restart_are_no_deaths(children: Supervisor, tmp_path: Path, said: Said) -> None:
    children.start_command("worker", python(SLEEP))
    until(lambda: "up" in log_of(tmp_path, "worker"), "the child writes")
    killed = children.kill9("worker")
    assert gone(killed)
    children.check()
    assert children.restart("worker") != killed
    children.check()
    assert children.running("worker")
    assert said.lines == []


def test_leaving_the_context_by_an_exception_stops_all(tmp_path: Path, said: Said) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with Supervisor(tmp_path, tmp_path, said) as supervisor:
            for name in ("one", "two"):
                supervisor.start_command(name, python(SLEEP))
                pids.append(supervisor.pid(name))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from fluvial.terminal.output import quiet_output
from fluvial.processes.supervisor import Supervisor
folder = Path({str(tmp_path)!r})
supervisor = Supervisor(folder, folder, quiet_output())
supervisor.start_command("orphan", [sys.executable, "-u", "-c", {SLEEP!r}])
print(supervisor.pid("orphan"), flush=True)
time.sleep(600)
"""
    root = str(Path(module.__file__).resolve().parents[4])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        until(lambda: "up" in log_of(tmp_path, "orphan"), "the child writes")
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: gone(orphan), "the orphan ends")
