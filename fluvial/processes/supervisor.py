"""Child processes of one run: started by name, watched, restarted when they die, and never left behind.

Rules:

- A child that ends without being asked is reported with the end of its log and started again, after a pause.
- A child that dies three times right after its start, or more than ``RESTARTS_MAX`` times in all, fails the run
  with its own error as the cause. Exit code 4 (usage) fails it at once: starting again mends no task file.
- A child that was given a crash point (``FLUVIAL_CRASH_AT``) and dies of it was asked to: it stays down, in silence,
  until ``restart``.
- Leaving the context stops every child: SIGTERM, a bounded wait, SIGKILL for the whole process group. Whoever was
  stopped is no scrape target any more, however it ended: nobody has to be told that it does not answer.
- Children have process groups of their own: Ctrl-C reaches only us. If we are killed, ``tether`` ends them.

Call ``start``, ``check`` and ``restart`` from the main thread: Linux ties a child to the *thread* that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from backends.environment import child_environment
from backends.logging_setup import human_lines
from fluvial.processes.metrics_server import forget_target
from fluvial.processes.signals import undisturbed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluvial.terminal.output import Reporter

STOP_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_S: Final = 5.0
START_S: Final = 20.0
"""A child that dies younger than this died at its start."""
START_DEATHS_MAX: Final = 3
RESTARTS_MAX: Final = 6
BACKOFF_S: Final = 0.5
BACKOFF_S_MAX: Final = 8.0
_USAGE_EXIT: Final = 4
_LOG_TAIL_BYTES: Final = 8192
_LOG_TAIL_LINES: Final = 8
_LOG_LINE_CHARACTERS: Final = 300
_CRASH_AT: Final = "FLUVIAL_CRASH_AT"
_OTHERS_SERVICES: Final = (
    "FLUVIAL_BOOTSTRAP_SERVERS",
    "FLUVIAL_KAFKA_",
    "FLUVIAL_STORE_",
    "FLUVIAL_UPDATE_BYTES_MAX",
    "FLUVIAL_HOME",
    _CRASH_AT,
)

ChildState = Literal["running", "restarting", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much dying is too much. ``backoff_s_max`` bounds the pause before a child is started again."""

    start_deaths_max: int = START_DEATHS_MAX
    restarts_max: int = RESTARTS_MAX
    backoff_s_max: float = BACKOFF_S_MAX


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child as progress shows it. ``restarts`` counts every start after the first, whoever caused it."""

    name: str
    state: ChildState
    pid: int
    restarts: int


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    log: Path
    may_finish: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    crash_at: str = ""
    state: ChildState = "stopped"
    restarts: int = 0
    deaths: int = 0
    deaths_at_start: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    process: subprocess.Popen[bytes] = field(init=False, repr=False)


class Supervisor:
    """The children of one run. A context manager: leaving it, in whatever way, stops them all."""

    def __init__(
        self, home: Path, log_folder: Path, reporter: Reporter, *, limits: Limits | None = None
    ) -> None:
        """Children get ``--home home`` and write into ``log_folder/<name>.log``."""
        self._limits = limits or Limits()
        self.home = home
        self.log_folder = log_folder
        self._reporter = reporter
        self._children: dict[str, _Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        may_finish: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``fluvial --home HOME <arguments>`` as ``name``. With ``may_finish``, exit code 0 is no death.

        ``environment`` goes over ours, at every start of this child.
        """
        self.start_command(
            name,
            [sys.executable, "-P", "-m", "fluvial.cli", "--home", str(self.home), *arguments],
            may_finish=may_finish,
            environment=environment,
        )

    def start_command(
        self,
        name: str,
        command: Sequence[str],
        *,
        may_finish: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start any command as the child ``name``; its first word is an absolute path."""
        if name in self._children and self._children[name].state in {"running", "restarting"}:
            message = f"the child {name} runs already"
            raise ValueError(message)
        self.log_folder.mkdir(parents=True, exist_ok=True)
        child = _Child(
            name, tuple(command), self.log_folder / f"{name}.log", may_finish, dict(environment or {})
        )
        child.log.unlink(missing_ok=True)
        self._spawn(child)

    def pid(self, name: str) -> int:
        """The child's process id."""
        return self._children[name].process.pid

    def running(self, name: str) -> bool:
        """Whether the child runs at this moment."""
        child = self._children.get(name)
        return child is not None and child.state == "running" and child.process.poll() is None

    def exit_code(self, name: str) -> int | None:
        """How the child ended, -9 for SIGKILL; None while it runs."""
        return self._children[name].process.poll()

    def statuses(self) -> list[ChildStatus]:
        """Every child, in the order of their starts. Callable from any thread."""
        return [
            ChildStatus(c.name, c.state, c.process.pid, c.restarts) for c in list(self._children.values())
        ]

    def check(self) -> None:
        """Notice deaths and start again what is due; call it often.

        Raises EnvironmentProblem, UsageProblem: FLV-6301, a child does not stay up; with the end of its log.
        """
        for child in self._children.values():
            if child.state == "running" and child.process.poll() is not None:
                self._ended(child)
            if child.state == "restarting" and time.monotonic() >= child.restart_at:
                child.restarts += 1
                self._spawn(child)

    def kill9(self, name: str) -> int:
        """SIGKILL, as a crash would; returns the pid. The child stays down until ``restart``."""
        child = self._children[name]
        child.state = "stopped"
        _signal_group(child.process, signal.SIGKILL)
        child.process.wait(KILL_TIMEOUT_S)
        return child.process.pid

    def pause(self, name: str) -> int:
        """SIGSTOP the child and whatever it started; returns its pid. ValueError when it does not run."""
        if not self.running(name):
            message = f"{name} does not run"
            raise ValueError(message)
        _signal_group(self._children[name].process, signal.SIGSTOP)
        return self.pid(name)

    def resume(self, name: str) -> None:
        """SIGCONT; nothing happens to a child that was not paused, or has ended."""
        child = self._children[name]
        if child.process.poll() is None:
            _signal_group(child.process, signal.SIGCONT)

    def restart(self, name: str, *, crash_at: str = "") -> int:
        """Start a stopped child again with the same command; returns the new pid.

        With ``crash_at`` (see ``backends.crash_points``) it will kill itself there, and then stay down.
        """
        child = self._children[name]
        if child.state == "running":
            self.stop([name])
        child.restarts += 1
        child.crash_at = crash_at
        self._spawn(child)
        return child.process.pid

    def stop(self, names: Sequence[str], timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop some children at the same time: SIGTERM, wait, then SIGKILL. A second Ctrl-C kills at once."""
        leaving = [self._children[name] for name in names if name in self._children]
        for child in leaving:
            if child.state != "done":
                child.state = "stopped"
        alive = [child for child in leaving if child.process.poll() is None]
        for child in alive:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            _signal_group(child.process, signal.SIGCONT)  # one that is paused would never see it
        try:
            self._wait(alive, timeout_s)
        finally:
            # Also after an orderly end: whatever a child has started itself is in its group.
            for child in alive:
                _signal_group(child.process, signal.SIGKILL)
                child.process.wait(KILL_TIMEOUT_S)
            for child in leaving:
                forget_target(self.home, child.process.pid)

    def stop_all(self) -> None:
        """Stop every child."""
        self.stop(list(self._children))

    def log_tail(self, name: str) -> str:
        """The cause in a child's log: from its last error on, else its last lines."""
        return "\n  ".join(_cause(self._children[name].log))

    def _wait(self, children: Sequence[_Child], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._reporter.waiting("the processes of this run to end") as waiting:
            while left := [child.name for child in children if child.process.poll() is None]:
                waiting.note(", ".join(left))
                if time.monotonic() > deadline:
                    self._reporter.say(
                        f"{', '.join(left)} did not end within {timeout_s:g} s of SIGTERM: killing"
                    )
                    return
                time.sleep(0.05)

    def _spawn(self, child: _Child) -> None:
        tether = Path(__file__).with_name("tether.py")
        command = [sys.executable, "-I", "-S", str(tether), str(os.getpid()), *child.command]
        with child.log.open("ab") as log, undisturbed():
            child.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(child),
                process_group=0,
            )
            child.started_at = time.monotonic()
            child.state = "running"
            self._children[child.name] = child

    def _ended(self, child: _Child) -> None:
        code = child.process.returncode
        if code == 0 and child.may_finish:
            child.state = "done"
            return
        _signal_group(child.process, signal.SIGKILL)
        if child.crash_at and code == -signal.SIGKILL:
            child.state = "stopped"
            return
        young = time.monotonic() - child.started_at < START_S
        child.deaths += 1
        child.deaths_at_start = child.deaths_at_start + 1 if young else 0
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        limits = self._limits
        hopeless = child.deaths_at_start >= limits.start_deaths_max or child.deaths > limits.restarts_max
        if code == _USAGE_EXIT or hopeless:
            child.state = "failed"
            raise self._problem(child, how)
        pause_s = min(BACKOFF_S * 2 ** min(child.deaths - 1, 16), limits.backoff_s_max)
        child.state, child.restart_at = "restarting", time.monotonic() + pause_s
        cause = "".join(f"\n  {line}" for line in _cause(child.log))
        self._reporter.say(
            f"{child.name} {how}; starting it again in {pause_s:g} s (its log: {child.log}){cause}"
        )

    def _problem(self, child: _Child, how: str) -> FluvialError:
        kind = UsageProblem if child.process.returncode == _USAGE_EXIT else EnvironmentProblem
        times = "" if child.deaths == 1 else f" ({child.deaths} times now)"
        return kind(
            "FLV-6301",
            f"{child.name} does not stay up: it {how}{times}",
            where="\n  ".join(_cause(child.log)) or "it wrote nothing",
            hint=f"its whole log is {child.log}; `fluvial doctor` checks this machine and the stack",
        )


def _environment(child: _Child) -> dict[str, str]:
    """Ours, without what would point the child at other services, able to import what we import, and its own."""
    environment = {
        name: value for name, value in child_environment().items() if not name.startswith(_OTHERS_SERVICES)
    }
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    environment["PYTHONUNBUFFERED"] = "1"
    # One native thread a process: a run is many processes, and their pools would fight over the cores.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.update(child.environment)
    if child.crash_at:
        environment[_CRASH_AT] = child.crash_at
    return environment


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the group that a child leads. Around the child's end only: later the number may be another's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cause(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip()[:_LOG_LINE_CHARACTERS] for line in human_lines(text) if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error[FLV-")]
    return lines[errors[-1] :][:_LOG_TAIL_LINES] if errors else lines[-_LOG_TAIL_LINES:]
