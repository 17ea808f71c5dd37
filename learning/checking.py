"""One batch of ``train()`` and ``evaluate()`` before anything is started: a mistake shows in seconds."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.kinds.protocol import Flat
from learning.root_set import coverage_problems, root_set_of
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters, local_of, train_locally
from learning.trial import check_results

if TYPE_CHECKING:
    from types import FrameType

    from learning.task import Task

Result = TypeVar("Result")

CHECK_S_MAX: Final = 30.0
"""A check that takes longer is left, and what it was for goes on."""
EVALUATED_EXAMPLES_MAX: Final = 256
DEVICES_ASSUMED: Final = 12
GUIDE: Final = "guide"
"""The defence that has a root set."""
OTHER_BATCHES_MAX: Final = 8


@dataclass(slots=True)
class CheckReport:
    """What one batch came to.

    trained, evaluated: what train() and evaluate() reported; empty where the time was over before. step_norm: L2 norm
    of what train() changed. unfinished: what was under way when the time was over, "" otherwise.
    """

    trained: dict[str, float] = field(default_factory=dict)
    evaluated: dict[str, float] = field(default_factory=dict)
    step_norm: float = 0.0
    seconds: float = 0.0
    unfinished: str = ""
    notes: list[str] = field(default_factory=list)


def check_task(task: Task, *, seed: int = 0, seconds_max: float = CHECK_S_MAX, path: str = "") -> CheckReport:
    """Load the data, train one batch from the first model, and evaluate what came out; ``task`` is as it was.

    After ``seconds_max`` it ends, unfinished; off the main thread nothing can end it. A user's function that fails on
    so few examples, and only there, is not reported: it gets a device's share, or all of the held-out ones. ``path`` is
    that of examples of one's own, for a task that has none.

    Raises what ``Task.data``, ``Task.guide_data``, ``train_locally`` and ``evaluate_parameters`` raise, at the user's
    own line; FLV-2240
    for a number of a name that it cannot have, FLV-2242 where METRIC is none of what evaluate() returns.
    """
    report = CheckReport()
    began = time.monotonic()
    doubt: UsageProblem | None = None

    def doubtful(problem: UsageProblem | None) -> None:
        nonlocal doubt
        doubt = problem

    try:
        with _at_most(seconds_max):
            report.unfinished = "data()"
            found = _examples(task, path)
            if found is None:
                report.unfinished = ""
                report.notes.append(
                    "the task has no data(): there is nothing to try train() and evaluate() on"
                )
                return report
            mine, share, test = found
            _try(task, mine, share, test, seed, report, doubtful)
            report.unfinished, doubt = "guide_data()", None
            report.notes += _guide_notes(task)
            report.unfinished = ""
            check_results(task, report.evaluated)
    except _TimeIsOver:
        if doubt is not None:
            raise doubt from None
    report.seconds = time.monotonic() - began
    return report


def _guide_notes(task: Task) -> list[str]:
    """What a guardian would say of the root set, where the task file has one or its POLICY asks for one."""
    defence = task.policy_overrides.get("defence", {})
    asked = isinstance(defence, Mapping) and defence.get("kind") == GUIDE
    own = task.guide_data()
    if own is None and not (asked and task.has_data):
        return []
    problems = coverage_problems(root_set_of(task))
    return [f"the root set would make a bad guide: {problem} (FLV-2251)" for problem in problems]


def _try(  # noqa: PLR0917
    task: Task,
    mine: Examples,
    share: int,
    test: Examples,
    seed: int,
    report: CheckReport,
    doubtful: Callable[[UsageProblem | None], None],
) -> None:
    """Train and evaluate; where that fails, on other examples: a device with bad ones sits its rounds out, in a run."""
    try:
        _train_and_evaluate(task, mine, share, test, seed, report, doubtful)
    except UsageProblem as problem:
        for batch in _other_batches(mine, share, task.config.batch_size):
            doubtful(problem)
            try:
                _train_and_evaluate(task, batch, len(batch), test, seed, report, doubtful, problem)
            except UsageProblem:
                continue
            report.notes.append(
                f"on some of the examples it fails: {problem.message} ({problem.error_id}); in a run, a device that "
                "has them sits its rounds out, and the others go on"
            )
            return
        raise


def _train_and_evaluate(  # noqa: PLR0917
    task: Task,
    mine: Examples,
    share: int,
    test: Examples,
    seed: int,
    report: CheckReport,
    doubtful: Callable[[UsageProblem | None], None],
    standing: UsageProblem | None = None,
) -> None:
    report.unfinished = "train()"
    local = _trained(task, mine, share, seed, report, doubtful)
    doubtful(standing)
    report.unfinished = "evaluate()"
    few = _some(test, EVALUATED_EXAMPLES_MAX)
    report.evaluated = _twice(
        lambda: evaluate_parameters(task, local, few),
        lambda: evaluate_parameters(task, local, test),
        doubtful,
    )


def _other_batches(examples: Examples, share: int, batch_size: int) -> Iterator[Examples]:
    """A few batches of examples that were not tried, each from all over them."""
    tried = np.union1d(_places(len(examples), batch_size), _places(len(examples), max(batch_size, share)))
    left = np.setdiff1d(np.arange(len(examples)), tried)
    batches = min(OTHER_BATCHES_MAX, len(left) // batch_size)
    for number in range(batches):
        part = left[number::batches]
        yield examples.subset(part[_places(len(part), batch_size)])


def _places(count: int, wanted: int) -> NDArray[np.int64]:
    """So many of ``count`` places, from all over them."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.int64)


def _examples(task: Task, path: str) -> tuple[Examples, int, Examples] | None:
    """Examples to train on, how many of them a device has, and held-out ones."""
    if path:
        mine = task.local_data(path)
        return mine, len(mine), mine
    if not task.has_data:
        return None
    data = task.data()
    if data.parts:
        first = next(iter(data.parts.values()))
        return first, len(first), data.test
    return data.train, len(data.train) // DEVICES_ASSUMED, data.test


def _trained(  # noqa: PLR0917
    task: Task,
    examples: Examples,
    share: int,
    seed: int,
    report: CheckReport,
    doubtful: Callable[[UsageProblem | None], None],
) -> Flat:
    base = initial_parameters(task, seed)
    config = replace(task.config.at(seed=seed, version=0), epochs=1)
    share = max(config.batch_size, share)
    result = _twice(
        lambda: train_locally(task, base, _some(examples, config.batch_size), config),
        lambda: train_locally(task, base, _some(examples, share), config),
        doubtful,
    )
    report.trained = result.metrics
    weights = task.anatomy.layout.trainable.parameters
    report.step_norm = float(np.linalg.norm(result.delta[:weights]))
    if report.step_norm == 0.0:
        report.notes.append("train() left the model as it was: it has to change it in place")
    return local_of(base, task.anatomy.model_of(result.delta), task.anatomy.layout)


def _some(examples: Examples, count: int) -> Examples:
    """So many, from all over them: sorted labels would give one class."""
    if count >= len(examples):
        return examples
    return examples.subset(_places(len(examples), count))


def _twice(
    first: Callable[[], Result], second: Callable[[], Result], doubtful: Callable[[UsageProblem | None], None]
) -> Result:
    """``first()``; where that fails in the user's code, ``second()``, whose examples are those of real life."""
    try:
        return first()
    except UsageProblem as problem:
        doubtful(problem)
    return second()


class _TimeIsOver(BaseException):
    """The check's time is over. It is no error: no user's ``except Exception`` may take it."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
