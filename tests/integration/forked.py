"""Processes that run the `fluvial` command without its imports: forked from a server that has done them once.

Each is a process of its own with the environment, folder and output that it is given, and ends as it would elsewhere;
only the interpreter's start is left out, which costs two to six seconds of a core. Where that start is what is tested
(`fluvial up`, the demo, chaos, the README), tests run ``python -m fluvial.cli``.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_PRELOADED: Final = "tests.integration.preloaded"
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([_PRELOADED])
_STARTED: Final[list[Forked]] = []


class Forked:
    """What ``subprocess.Popen`` gives of a process, of one that was forked."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Start `fluvial` with ``arguments``; what it says is appended to the files.

        ``prepare`` (a function of a module, or a partial of one) is called in the process before all else.
        """
        given = (list(arguments), str(cwd), dict(environment), str(stdout), str(stderr or stdout), prepare)
        self._process = _CONTEXT.Process(target=_run, args=given)
        for path in {stdout, stderr or stdout}:
            path.touch()  # it may be read before the process has opened it
        with contextlib.chdir(ROOT):  # where the server finds what it preloads
            self._process.start()
        _STARTED.append(self)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended, negative for the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it ends."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("fluvial", timeout or 0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


@atexit.register
def _end_all() -> None:
    """A test that failed may have left some: multiprocessing would wait for them."""
    for one in _STARTED:
        one.kill()


def _run(
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    stdout: str,
    stderr: str,
    prepare: Callable[[], None] | None,
) -> None:
    """In the forked process: become the `fluvial` command."""
    assert _PRELOADED in sys.modules, "the server has preloaded nothing: see its own output"
    _STARTED.clear()
    os.chdir(cwd)
    os.environ.clear()  # noqa: TID251
    os.environ.update(environment)  # noqa: TID251
    _say_into(stdout, stderr)
    if prepare is not None:
        prepare()
    from fluvial import cli

    sys.argv = ["fluvial", *arguments]
    code = cli.main(arguments)
    atexit._run_exitfuncs()  # what multiprocessing leaves out
    sys.stdout.flush()
    sys.exit(code)


def _say_into(stdout: str, stderr: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", line_buffering=True, errors="backslashreplace"
    )
