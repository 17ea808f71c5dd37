"""Daemons with pid files: started detached, recognised again, and never mistaken for somebody else's.

A pid alone proves nothing: after a crash or a reboot the number may belong to any process. A pid file
therefore also holds the start time, and the process must work in the home folder or carry it on its command line.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from aggregation.errors import EnvironmentProblem, TimeoutProblem
from backends.environment import child_environment
from fluvial.processes.signals import undisturbed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluvial.terminal.output import Reporter

STOP_TIMEOUT_S: Final = 30.0
KILL_TIMEOUT_S: Final = 10.0
# The start time is derived from the boot time, which the system may adjust a little while the daemon lives.
_START_TIME_SLACK_S: Final = 5.0
_LOG_TAIL_BYTES: Final = 4096
_LOG_TAIL_LINES: Final = 6
_LAST_START_BYTES: Final = 64 << 10
_FOR_NOBODY_ELSE: Final = 0o077
"""The umask: MinIO keeps its users' keys in its data as they are."""
_PORT_TAKEN: Final = "ddress already in use"
"""As Java and Go say it."""


class PidFile(msgspec.Struct, frozen=True, kw_only=True):
    """``<home>/run/<name>.json``."""

    pid: int
    started_at: float


@dataclass
class Daemon:
    """One background process of the stack.

    ``marker`` must appear on the process's command line, unless it works in ``folder``, where it is started:
    whatever letters a home has in its name, a service is given names of files that are relative to it (ADR 23).
    ``console`` gets its stdout and stderr; ``log`` is what it writes itself, if that is another file. A failed start is
    explained from both.
    """

    name: str
    pid_path: Path
    console: Path
    marker: str
    log: Path | None = None
    folder: Path | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def process(self) -> psutil.Process | None:
        """The running process if it is ours; a stale or damaged pid file counts as none."""
        if self._child is not None and self._child.poll() is None:
            # Our own child needs no proof; for a moment after its start it has no command line to give one.
            return psutil.Process(self._child.pid)
        try:
            record = msgspec.json.decode(self.pid_path.read_bytes(), type=PidFile)
        except (OSError, msgspec.DecodeError):
            return None
        try:
            process = psutil.Process(record.pid)
            ours = (
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - record.started_at) < _START_TIME_SLACK_S
                and (
                    self._works_here(process)
                    or any(self.marker in argument for argument in process.cmdline())
                )
            )
        except psutil.Error:
            return None
        return process if ours else None

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> psutil.Process:
        """Start detached from the terminal (Ctrl-C does not reach it), its output into the console file.

        Raises EnvironmentProblem: FLV-1008, the program cannot be executed.
        """
        self.pid_path.parent.mkdir(parents=True, exist_ok=True)
        self.console.parent.mkdir(parents=True, exist_ok=True)
        with self.console.open("wb") as console:
            try:
                with undisturbed():
                    self._child = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=console,
                        stderr=subprocess.STDOUT,
                        # Also what a program keeps of its user stays in the home; and a user need not have one.
                        env=child_environment({**self._own_home(), **(environment or {})}),
                        cwd=self.folder,
                        start_new_session=True,
                        umask=_FOR_NOBODY_ELSE,
                    )
            except OSError as error:
                raise self.died(f"{command[0]} cannot be executed: {error.strerror}") from error
        # ``process`` knows the child from here on: an interruption before the pid file leaves no orphan.
        process = psutil.Process(self._child.pid)
        record = PidFile(pid=process.pid, started_at=process.create_time())
        temporary = self.pid_path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(self.pid_path)
        return process

    def stop(self, reporter: Reporter) -> bool:
        """Ask it to end, wait, then force it. True if there was something to stop.

        Raises TimeoutProblem: FLV-1012, it does not even end by force.
        """
        process = self.process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
            with reporter.waiting(f"{self.name} to end"):
                if not self._ended(process, STOP_TIMEOUT_S):
                    reporter.say(
                        f"{self.name} (pid {process.pid}) did not end in {STOP_TIMEOUT_S:.0f} s: killing it"
                    )
                    self._kill(process)
        self.pid_path.unlink(missing_ok=True)
        return process is not None

    def kill(self) -> bool:
        """SIGKILL, for fault tests and interrupted starts. True if there was something to kill."""
        process = self.process()
        if process is not None:
            self._kill(process)
        return process is not None

    def died(self, reason: str) -> EnvironmentProblem:
        """FLV-1008 with the last lines of the log, ready to raise."""
        return EnvironmentProblem(
            "FLV-1008",
            f"{self.name} stopped while starting: {reason}",
            where=self.log_tail(),
            hint=f"the whole log is {self.log or self.console}; `fluvial doctor` checks this machine",
        )

    def lost_its_port(self) -> bool:
        """Whether the end of its log says that another program had one of its ports, which may be free again by now."""
        kept = [*(_tail(self.log, _LAST_START_BYTES) if self.log is not None else ()), *_tail(self.console)]
        return any(_PORT_TAKEN in line for line in kept)

    def log_tail(self) -> str:
        """The last lines of log and console, indented for an error."""
        lines = [*(_tail(self.log) if self.log is not None else ()), *_tail(self.console)]
        return "\n  ".join(lines[-_LOG_TAIL_LINES:])

    def _own_home(self) -> dict[str, str]:
        return {} if self.folder is None else {"HOME": str(self.folder)}

    def _works_here(self, process: psutil.Process) -> bool:
        return self.folder is not None and process.cwd() == str(self.folder)

    def _kill(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if not self._ended(process, KILL_TIMEOUT_S):
            raise TimeoutProblem(
                "FLV-1012",
                f"{self.name} (pid {process.pid}) did not end within {KILL_TIMEOUT_S:.0f} s of SIGKILL",
                hint=f"see what it waits for with `ps -o stat,wchan -p {process.pid}` (a disk that hangs?)",
            )

    def _ended(self, process: psutil.Process, timeout_s: float) -> bool:
        child = self._child
        if child is not None and child.pid == process.pid:
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            return True
        # Another process's child: its parent may leave a zombie for a while, which is as good as gone.
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.05)
        return False


def _tail(path: Path, bytes_max: int = _LOG_TAIL_BYTES) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - bytes_max))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]
