"""Where models are evaluated: a process beside the evaluator, and a bound on how long it may take."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from backends.environment import child_environment
from schemas.manifests import Metric
from stream_apps.evaluator.bench_messages import (
    Answer,
    MetricSaid,
    Opening,
    Request,
    Trouble,
    receive,
    send,
)
from stream_apps.evaluator.limits import EVALUATION_S_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TELL_EVERY_S: Final = 30.0
ATTEMPTS: Final = 2
"""How often an evaluation that fails, or whose process ends, is tried before that is published."""
_END_S: Final = 5.0
_CHILD: Final = (
    "import sys; from fluvial._siblings import own_module; "
    "own_module('stream_apps.evaluator.bench_child').main(*sys.argv[1:])"
)

Problem = Literal["not_finite", "failed", "crashed", "late", "unreadable"]

log = logging.getLogger("fluvial.evaluator")


class EvaluationProblem(Exception):
    """An evaluation that gives no finite loss. ``numbers``: what it gave all the same."""

    def __init__(
        self, problem: Problem, trouble: Trouble, numbers: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(trouble.message)
        self.problem: Problem = problem
        self.trouble = trouble
        self.numbers = dict(numbers or {})

    def __str__(self) -> str:
        lines = [f"{self.trouble.message} ({self.trouble.error_id})"]
        lines += [f"  {self.trouble.where}"] if self.trouble.where else []
        lines += [f"  hint: {self.trouble.hint}"] if self.trouble.hint else []
        return "\n".join(lines)


class BenchClosedError(Exception):
    """The evaluator ends, and waits for no answer."""


class Bench:
    """One task's. Not thread-safe, but for ``close``. ``command`` is for tests: what to start instead."""

    def __init__(
        self,
        reference: str,
        opening: Opening | None = None,
        *,
        seconds_max: float = EVALUATION_S_MAX,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start the process; ``open`` waits for it. Without ``opening`` the models are the task file's own."""
        self._seconds_max = seconds_max
        bound = () if opening is None else ("bound",)
        self._command = (*(command or (sys.executable, "-P", "-c", _CHILD)), reference, *bound)
        self._opening = opening
        self._child: _Child | None = _Child(self._command, opening)
        self._closed = False
        self.metric: Metric | None = None

    def open(self) -> None:
        """Wait until the task and its data are loaded: what loading them raises, as it is."""
        answer = self._ready(self._running())
        trouble = answer.trouble
        if trouble is not None:
            kind = UsageProblem if trouble.exit_code == UsageProblem.exit_code else EnvironmentProblem
            self.close()
            problem = kind(trouble.error_id, trouble.message, where=trouble.where, hint=trouble.hint)
            problem.users_traceback = trouble.users_traceback
            raise problem
        self.metric = (
            None
            if answer.metric is None
            else Metric(answer.metric.name, higher_is_better=answer.metric.higher_is_better)
        )

    def evaluate(self, model: npt.NDArray[np.floating]) -> dict[str, float]:
        """The numbers of ``evaluate()`` on the held-out data. Raises EvaluationProblem."""
        request = Request(model.tobytes(), model.dtype.str)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask(request)
            except EvaluationProblem as problem:
                if problem.problem not in {"failed", "crashed"} or attempt == ATTEMPTS:
                    raise
                log.warning("trying the evaluation again: %s", problem)
        raise AssertionError("unreachable")

    def parts(self, model: npt.NDArray[np.floating], metric: Metric) -> dict[str, float]:
        """The metric on classes and cohorts. Raises EvaluationProblem."""
        said = MetricSaid(metric.name, metric.higher_is_better)
        return self._ask(Request(model.tobytes(), model.dtype.str, said))

    def close(self) -> None:
        """End the process, whatever it does; an evaluation under way raises BenchClosedError. From any thread."""
        self._closed = True
        if self._child is not None:
            self._child.end()

    def _ask(self, request: Request) -> dict[str, float]:
        child = self._running()
        answer = Answer() if child.is_ready else self._ready(child)
        if answer.trouble is None:
            child.ask(request)
            answer = self._wait(child, time.monotonic() + self._seconds_max)
        if answer.trouble is None:
            return answer.numbers
        problem: Problem = "not_finite" if answer.trouble.not_finite else "failed"
        raise EvaluationProblem(problem, answer.trouble, answer.numbers)

    def _running(self) -> _Child:
        if self._closed:
            raise BenchClosedError
        if self._child is None:
            self._child = _Child(self._command, self._opening)
        return self._child

    def _ready(self, child: _Child) -> Answer:
        """The first answer of a process; loading the data has no bound, and is told."""
        answer = self._wait(child, None, doing="loading the task and its data")
        child.is_ready = answer.trouble is None
        return answer

    def _wait(self, child: _Child, deadline_s: float | None, doing: str = "evaluating") -> Answer:
        began_s = time.monotonic()
        while True:
            left_s = TELL_EVERY_S if deadline_s is None else deadline_s - time.monotonic()
            if left_s <= 0:
                self._drop(child)
                raise EvaluationProblem("late", _lateness(self._seconds_max))
            try:
                data = child.inbox.get(timeout=min(left_s, TELL_EVERY_S))
            except queue.Empty:
                bound = "" if deadline_s is None else f" of {self._seconds_max:g} at most"
                log.info("%s, %.0f s%s", doing, time.monotonic() - began_s, bound)
                continue
            if data is not None:
                return msgspec.msgpack.decode(data, type=Answer)
            if self._closed:
                raise BenchClosedError
            trouble = _crash(child)
            self._drop(child)
            raise EvaluationProblem("crashed", trouble)

    def _drop(self, child: _Child) -> None:
        """The next request goes to another process."""
        self._child = None
        child.end()


class _Child:
    """One process, and a thread that takes its answers."""

    def __init__(self, command: Sequence[str], opening: Opening | None) -> None:
        self.is_ready = False
        self.inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        threading.Thread(
            target=_take_answers, args=(self.process.stdout, self.inbox), name="answers", daemon=True
        ).start()
        if opening is not None:
            self.ask(opening)

    def ask(self, request: Opening | Request) -> None:
        """Send a request. A process that has ended says so by its end, in the inbox."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            send(self.process.stdin, request)  # type: ignore[arg-type]

    def end(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_S)


def _take_answers(stream: IO[bytes], inbox: queue.SimpleQueue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while (data := receive(stream)) is not None:  # type: ignore[arg-type]
            inbox.put(data)
    inbox.put(None)


def _crash(child: _Child) -> Trouble:
    try:
        code = child.process.wait(_END_S)
    except subprocess.TimeoutExpired:
        code = 0
    how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
    return Trouble(
        "FLV-6313",
        f"the process in which evaluate() runs {how}",
        hint="SIGKILL is the kernel's, most often for want of memory: use fewer held-out examples"
        if code == -signal.SIGKILL
        else "the evaluator's log has what it wrote",
    )


def _lateness(seconds_max: float) -> Trouble:
    return Trouble(
        "FLV-6312",
        f"evaluate() took longer than {seconds_max:g} s",
        hint="hold out fewer examples, or give it more time: `--evaluation-seconds N`, of the run or the evaluator",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> dict[str, str]:
    """Ours, in which our packages are found wherever this process found them."""
    root, ours = str(Path(__file__).resolve().parents[2]), child_environment()
    return ours | {"PYTHONPATH": os.pathsep.join(filter(None, (root, ours.get("PYTHONPATH", ""))))}


def problem_of(error: FluvialError) -> EvaluationProblem:
    """An error of the evaluator's own as the problem of one version: its model or manifest cannot be read."""
    return EvaluationProblem("unreadable", Trouble(error.error_id, error.message, error.where, error.hint))
