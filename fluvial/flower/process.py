"""The process in which a Flower app lives: started when it is first asked, and again after it ended.

It is one a process of Fluvial's, and threads take turns. ``FLUVIAL_FLOWER_PYTHON`` names its interpreter; without it,
it is the one that runs Fluvial (ADR 50).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from backends.environment import child_environment, flower_python
from fluvial.flower.wire import FrameError, read_frame, write_frame

Arrays = list[NDArray[Any]]
END_S_MAX: Final = 5.0
"""How long a process whose pipes are closed may take to end, before it is killed."""
INSTALL: Final = (
    "pip install 'fluvial[flower]', or name the interpreter of the app's own environment: `--flower-python PATH`, "
    "or FLUVIAL_FLOWER_PYTHON"
)
_ENTRY: Final = Path(__file__).with_name("entry.py")


class AppProcess:
    """One Flower app in a process of its own. ``opening``: the request that opens it, as ``wire`` says."""

    def __init__(self, opening: Mapping[str, Any], where: str) -> None:
        """``where``: the task file, for errors."""
        self._opening = dict(opening)
        self._where = where
        self._turn = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def open(self) -> tuple[dict[str, Any], Arrays]:
        """The first model's arrays and names, from a process that begins anew.

        Raises EnvironmentProblem FLV-2260 (no such interpreter, or no ``flwr`` in it), UsageProblem FLV-2261 (the app
        cannot be used) and FLV-2263 (the process ended).
        """
        with self._turn:
            self.close()
            self._start()
            return self._exchange({**self._opening, "do": "open", "seed": 0}, [], "FLV-2261")

    def ask(
        self, request: Mapping[str, Any], arrays: Sequence[NDArray[Any]], error_id: str
    ) -> tuple[dict[str, Any], Arrays]:
        """The answer. Raises what ``open`` does; UsageProblem ``error_id`` when the app raises, FLV-2262 for none."""
        with self._turn:
            if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
                self.open()
            return self._exchange(request, arrays, error_id)

    def close(self) -> None:
        """End the process, if this process has started one."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return  # after a fork it is the parent's
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            child.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _start(self) -> None:
        python = flower_python() or Path(sys.executable)
        try:
            self._child = subprocess.Popen(
                [str(python), str(_ENTRY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment({"FLWR_TELEMETRY_ENABLED": "0"}),
            )
        except OSError as error:
            raise EnvironmentProblem(
                "FLV-2260", f"{python} cannot be started: {error.strerror or error}", hint=INSTALL
            ) from error
        self._owner = os.getpid()

    def _exchange(
        self, request: Mapping[str, Any], arrays: Sequence[NDArray[Any]], error_id: str
    ) -> tuple[dict[str, Any], Arrays]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            write_frame(child.stdin, request, [np.asarray(array) for array in arrays])
            answer = read_frame(child.stdout)
        except (OSError, FrameError, ValueError) as error:
            self._ended(str(error))
        except BaseException:
            child.kill()  # a signal's handler or a timer left in the middle: the next answer would be to this request
            self.close()
            raise
        if answer is None:
            self._ended("")
        document, made = answer
        if "refused" in document:
            raise self._refusal(document, error_id)
        return document, made

    def _ended(self, said: str) -> NoReturn:
        child = self._child
        assert child is not None
        self.close()
        raise UsageProblem(
            "FLV-2263",
            f"the process of the Flower app ended by itself, with exit code {child.returncode}"
            + (f" ({said})" if said else ""),
            where=self._where,
            hint="what it said stands above, on standard error; -9 is the kernel's, most often for want of memory",
        )

    def _refusal(self, document: Mapping[str, Any], error_id: str) -> FluvialError:
        kind, message = str(document["refused"]), str(document["message"])
        where = str(document.get("where") or self._where)
        problem: FluvialError
        if kind == "flwr":
            python = flower_python() or sys.executable
            problem = EnvironmentProblem(
                "FLV-2260", f"{python} has no Flower that can be used: {message}", hint=INSTALL
            )
        elif kind in {"app", "model"}:
            problem = UsageProblem(
                "FLV-2261", f"the Flower app cannot run here: {message}", where=where, hint=_HINTS[kind]
            )
        elif kind == "reply":
            problem = UsageProblem(
                "FLV-2262",
                f"the client's reply is no model: {message}",
                where=where,
                hint="return the arrays that it was sent, trained: as many, of the same shapes",
            )
        else:
            problem = UsageProblem(
                error_id, f"the Flower app fails: {message}", where=where, hint="mend that line of the app"
            )
        problem.users_traceback = str(document.get("traceback") or "")
        return problem


_HINTS: Final = {
    "app": "name it as Flower does, `--flower package.client_app:app`, from the folder that holds the package",
    "model": "name its ServerApp with `--flower-server module:attribute`, or give the client a get_parameters()",
}
