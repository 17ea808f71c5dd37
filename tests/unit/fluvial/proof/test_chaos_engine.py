"""The engine with real children: faults are done, waited out, healed early at the end, and what dies is noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from aggregation.errors import ConnectionProblem
from fluvial.processes.supervisor import Limits, Supervisor
from fluvial.proof.chaos.engine import Engine
from fluvial.proof.chaos.injecting import Injector
from fluvial.proof.chaos.parts import Cast, Parts
from fluvial.proof.chaos.schedule import Fault, Kind
from fluvial.terminal.output import quiet_output
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S = 60.0
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
DIES_WHEN_TOLD = """
import os, signal, time
open(os.environ["SEEN"], "a").write(os.environ.get("FLUVIAL_CRASH_AT", "nothing") + "\\n")
if "FLUVIAL_CRASH_AT" in os.environ:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


class SleepingStack:
    """A stack whose broker is a process that sleeps."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(SLEEPER)

    def pid(self, _name: str) -> int | None:
        return self.process.pid if self.process.poll() is None else None

    def kill(self, name: str) -> None:
        if self.pid(name) is None:
            raise ConnectionProblem("FLV-1001", "it does not run")
        self.process.kill()
        self.process.wait()

    def start(self, _name: str) -> None:
        time.sleep(0.2)
        self.process = subprocess.Popen(SLEEPER)

    def pause(self, _name: str) -> int:
        psutil.Process(self.process.pid).suspend()
        return self.process.pid

    def resume(self, _name: str) -> None:
        psutil.Process(self.process.pid).resume()


class Scene:
    """Children that sleep, a broker that sleeps, and an engine with these faults."""

    def __init__(self, supervisor: Supervisor, stack: SleepingStack, parts: Parts) -> None:
        self.supervisor = supervisor
        self.stack = stack
        self.parts = parts
        self.began = time.monotonic()
        self.engine = Engine([], Injector(parts, None, None), parts, quiet_output())

    def plan(self, *faults: tuple[Kind, str, float, str]) -> Engine:
        planned = [
            Fault(number, 0.0, kind, target, seconds, detail)
            for number, (kind, target, seconds, detail) in enumerate(faults, start=1)
        ]
        self.began = time.monotonic()
        self.engine = Engine(planned, Injector(self.parts, None, None), self.parts, quiet_output())
        return self.engine

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < deadline
            self.engine.act(time.monotonic() - self.began)
            self.supervisor.check()
            time.sleep(0.02)

    def status(self, name: str) -> str:
        return str(psutil.Process(self.parts.pid(name) or 0).status())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    stack: Any = SleepingStack()
    crew = Cast({"eu": 1}, 1, store=False, guided=True)
    limits = Limits(start_deaths_max=100, restarts_max=100, backoff_s_max=0.1)
    try:
        with Supervisor(tmp_path, tmp_path, quiet_output(), limits=limits) as supervisor:
            for name in ("worker-eu-0", *crew.mergers, *crew.guardians, "evaluator"):
                supervisor.start_command(name, SLEEPER)
            crash = [sys.executable, "-c", DIES_WHEN_TOLD]
            supervisor.start_command("fleet", crash, environment={"SEEN": str(tmp_path / "seen")})
            with Parts(crew, stack, supervisor) as parts:
                yield Scene(supervisor, stack, parts)
    finally:
        stack.process.kill()
        stack.process.wait()


def test_a_killed_part_is_another_process_afterwards(scene: Scene) -> None:
    before = scene.parts.pid("worker-eu-0")
    engine = scene.plan(("kill", "worker-eu-0", 0.1, ""))
    scene.until(lambda: bool(engine.records))
    (record,) = engine.records
    assert record.ok and str(before) in record.outcome
    assert scene.parts.pid("worker-eu-0") != before and scene.parts.is_up("worker-eu-0")
    assert record.began_at <= record.killed_at[0] <= record.ended_at
    assert engine.counts == {"kill": 1}


@pytest.mark.parametrize("kind", ["merger", "guardian"])
def test_all_of_a_kind_die_at_once(scene: Scene, kind: str) -> None:
    names = scene.parts.crew.names(f"{kind}s")
    assert list(names) == [f"{kind}-0", f"{kind}-1"]
    before = {scene.parts.pid(name) for name in names}
    engine = scene.plan(("kill", f"{kind}s", 0.0, ""))
    scene.until(lambda: bool(engine.records))
    after = {scene.parts.pid(name) for name in names}
    assert not before & after


def test_a_paused_part_stands_still_and_goes_on(scene: Scene) -> None:
    before = scene.parts.pid("evaluator")
    engine = scene.plan(("pause", "evaluator", 0.5, ""))
    scene.until(lambda: bool(engine.active))
    until(lambda: scene.status("evaluator") == psutil.STATUS_STOPPED, "the signal has come")
    scene.until(lambda: bool(engine.records))
    assert scene.status("evaluator") != psutil.STATUS_STOPPED
    assert scene.parts.pid("evaluator") == before


def test_the_broker_is_killed_and_started_and_paused_like_any_part(scene: Scene) -> None:
    before = scene.stack.pid("kafka")
    engine = scene.plan(("kill", "broker", 0.0, ""), ("pause", "broker", 0.3, ""))
    scene.until(lambda: len(engine.records) == 2)
    assert [record.ok for record in engine.records] == [True, True]
    assert scene.stack.pid("kafka") not in {None, before}


def test_a_broker_that_ends_by_itself_is_started_again(scene: Scene) -> None:
    scene.plan()
    scene.stack.kill("kafka")
    scene.until(lambda: scene.stack.pid("kafka") is not None)


def test_a_part_dies_at_its_crash_point_and_then_runs_without_one(scene: Scene, tmp_path: Path) -> None:
    # What it wrote, and not that the file is there: killed between the two, it would never have been seen.
    scene.until(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").read_text().endswith("\n"))
    engine = scene.plan(("kill", "fleet", 0.0, "worker.resumed:1"))
    scene.until(lambda: bool(engine.records))
    scene.until(lambda: len((tmp_path / "seen").read_text().split()) == 3)
    assert (tmp_path / "seen").read_text().split() == ["nothing", "worker.resumed:1", "nothing"]
    assert engine.records[0].ok and "code -9 at worker.resumed:1" in engine.records[0].outcome
    assert len(engine.records[0].killed_at) == 2


def test_healing_cuts_every_fault_short(scene: Scene) -> None:
    engine = scene.plan(("pause", "evaluator", 600.0, ""), ("kill", "worker-eu-0", 600.0, ""))
    scene.until(lambda: len(engine.active) == 2)
    engine.heal()
    assert not engine.active and all(record.ok for record in engine.records)
    assert scene.status("evaluator") != psutil.STATUS_STOPPED
    assert scene.parts.is_up("worker-eu-0")


def test_a_target_that_stays_down_is_waited_for_and_then_left_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial.proof.chaos.engine.TARGET_WAIT_S_MAX", 0.3)
    scene.supervisor.stop(["evaluator"])
    engine = scene.plan(("kill", "evaluator", 0.0, ""))
    scene.until(lambda: bool(engine.dropped))
    assert engine.counts == {}


def test_stopping_ends_a_paused_child_too(scene: Scene) -> None:
    scene.supervisor.pause("evaluator")
    scene.supervisor.stop(["evaluator"])
    assert scene.supervisor.exit_code("evaluator") == -15, "by SIGTERM: nobody had to wait and kill it"
    with pytest.raises(ValueError, match="does not run"):
        scene.supervisor.pause("evaluator")
