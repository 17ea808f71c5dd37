"""The process in which a task's ``evaluate()`` runs: the evaluator's child, its only one.

Whatever users' code does there (hang, use up the memory, end the program) ends this process at most, and the evaluator
starts another. Requests come by stdin, answers go by stdout; for users' code stdin is empty and stdout is stderr, which
is the evaluator's log. It ends with its parent, however that ends.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import numpy as np

from aggregation.errors import FluvialError
from schemas.manifests import Metric, decode_genesis
from stream_apps.evaluator.bench_messages import (
    Answer,
    MetricSaid,
    Opening,
    Request,
    Trouble,
    receive,
    send,
)

if TYPE_CHECKING:
    from learning import Examples, Task
    from learning.slices import Slices


def main(reference: str, bound: str = "") -> None:
    """Load the task ``reference``, say so, then answer requests for as long as they come.

    Where it is ``bound``, the first message says to which task's models.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the evaluator's, and we end with it
    requests, answers = _pipes_of_our_own()
    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    opening = None
    if bound:
        data = receive(requests)
        if data is None:
            return  # the evaluator has ended
        opening = msgspec.msgpack.decode(data, type=Opening)
    threading.Thread(target=_take_requests, args=(requests, waiting), name="requests", daemon=True).start()
    try:
        task, held_out, slices = _load(reference, opening)
    except BaseException as error:  # noqa: BLE001 (users' code may raise anything)
        send(answers, Answer(trouble=_trouble(error)))
        return
    metric = task.metric
    said = None if metric is None else MetricSaid(metric.name, metric.higher_is_better)
    send(answers, Answer(metric=said))
    while True:
        send(answers, _answer(waiting.get(), task, held_out, slices))


def _load(reference: str, opening: Opening | None) -> tuple[Task, Examples, Slices]:
    from learning.binding import bind
    from learning.slices import Slices
    from learning.task import load_task

    task = load_task(reference)
    if opening is not None:
        # The evaluator has read the object by the hash that the genesis has.
        task = bind(task, decode_genesis(opening.genesis), lambda _sha256: opening.frozen or b"")
    held_out = task.held_out("" if opening is None else opening.data)
    return task, held_out, Slices(task, held_out)


def _answer(request: Request, task: Task, held_out: Examples, slices: Slices) -> Answer:
    from learning.task import LossNotFiniteProblem
    from learning.training import evaluate_parameters

    model = np.frombuffer(request.model, np.dtype(request.dtype))
    try:
        if request.metric is not None:
            metric = Metric(request.metric.name, higher_is_better=request.metric.higher_is_better)
            return Answer(numbers=slices.evaluate(model, metric))
        return Answer(numbers=evaluate_parameters(task, model, held_out))
    except LossNotFiniteProblem as problem:
        return Answer(numbers=problem.metrics, trouble=_trouble(problem, not_finite=True))
    except BaseException as error:  # noqa: BLE001
        return Answer(trouble=_trouble(error))


def _trouble(error: BaseException, *, not_finite: bool = False) -> Trouble:
    if isinstance(error, FluvialError):
        return Trouble(
            error.error_id,
            error.message,
            error.where,
            error.hint,
            error.exit_code,
            not_finite=not_finite,
            users_traceback=error.users_traceback,
        )
    return Trouble("FLV-9000", f"{type(error).__name__}: {error}", exit_code=5)


def _pipes_of_our_own() -> tuple[BinaryIO, BinaryIO]:
    """Our stdin and stdout for ourselves alone."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def _take_requests(requests: BinaryIO, waiting: queue.SimpleQueue[Request]) -> None:
    while (data := receive(requests)) is not None:
        waiting.put(msgspec.msgpack.decode(data, type=Request))
    os._exit(0)  # the evaluator has ended, and evaluate() may never return
