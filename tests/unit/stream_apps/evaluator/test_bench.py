"""Users' evaluate() in a process of its own: whatever it does there, the evaluator has an answer and goes on."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aggregation.errors import FluvialError, UsageProblem
from learning.task import load_task
from learning.tensors import initial_parameters
from schemas.manifests import Metric
from stream_apps.evaluator import bench as bench_module
from stream_apps.evaluator.bench import Bench, BenchClosedError, EvaluationProblem

STAND_IN: Final = """
import os, sys, time
import numpy as np
from stream_apps.evaluator.bench_messages import *
requests, answers = sys.stdin.buffer, sys.stdout.buffer
send(answers, Answer(metric=MetricSaid("r2", True)))
while (data := receive(requests)) is not None:
    request = msgspec.msgpack.decode(data, type=Request)
    does, marks = np.frombuffer(request.model, request.dtype)[0], sys.argv[1]
    with open(marks, "a") as file:
        file.write("x")
    if does == 1 or does == 5 and os.path.getsize(marks) == 1:
        os._exit(3)
    if does == 2:
        os.kill(os.getpid(), 9)
    if does == 3:
        time.sleep(600)
    if does == 4:
        send(answers, Answer(trouble=Trouble("FLV-2209", "it raises", "mine.py:3")))
        continue
    send(answers, Answer(numbers={"loss": float(does)}))
"""
"""Does what the model's first number says, without a task and its libraries; counts its requests in a file."""
WELL, ENDS, IS_KILLED, HANGS, RAISES, ENDS_ONCE = 0.0, 1.0, 2.0, 3.0, 4.0, 5.0


def model(does: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([does, 0.0], np.float32)


@pytest.fixture
def stand_in(tmp_path: Path) -> Any:
    made = Bench(str(tmp_path / "marks"), seconds_max=60.0, command=(sys.executable, "-c", STAND_IN))
    made.open()
    yield made
    made.close()


def problem(bench: Bench, does: float) -> EvaluationProblem:
    with pytest.raises(EvaluationProblem) as caught:
        bench.evaluate(model(does))
    return caught.value


def test_the_bench_says_the_tasks_metric_and_answers(stand_in: Bench) -> None:
    assert stand_in.metric == Metric("r2", higher_is_better=True)
    assert stand_in.evaluate(model(7.0)) == {"loss": 7.0}


@pytest.mark.parametrize(
    ("does", "text"), [(ENDS, "ended with exit code 3"), (IS_KILLED, "was killed by SIGKILL")]
)
def test_a_process_that_ends_is_started_again(
    stand_in: Bench, tmp_path: Path, does: float, text: str
) -> None:
    found = problem(stand_in, does)
    assert (found.problem, found.trouble.error_id) == ("crashed", "FLV-6313")
    assert text in str(found)
    assert (tmp_path / "marks").read_text() == "xx"  # it was tried twice
    assert stand_in.evaluate(model(WELL)) == {"loss": 0.0}


def test_what_goes_wrong_once_is_no_problem(stand_in: Bench) -> None:
    assert stand_in.evaluate(model(ENDS_ONCE)) == {"loss": 5.0}


def test_what_evaluate_raises_is_tried_again_and_then_told(stand_in: Bench, tmp_path: Path) -> None:
    found = problem(stand_in, RAISES)
    assert found.problem == "failed"
    assert str(found) == "it raises (FLV-2209)\n  mine.py:3"
    assert (tmp_path / "marks").read_text() == "xx"


def test_one_that_never_ends_has_a_bound_and_the_next_is_evaluated(
    stand_in: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "_seconds_max", 0.3)
    pid = stand_in._running().process.pid
    found = problem(stand_in, HANGS)
    assert (found.problem, found.trouble.error_id) == ("late", "FLV-6312")
    assert "--evaluation-seconds" in str(found)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    monkeypatch.setattr(stand_in, "_seconds_max", 60.0)
    assert stand_in.evaluate(model(WELL)) == {"loss": 0.0}


def test_closing_it_ends_what_is_under_way(stand_in: Bench) -> None:
    threading.Timer(0.2, stand_in.close).start()
    with pytest.raises(BenchClosedError):
        stand_in.evaluate(model(HANGS))
    with pytest.raises(BenchClosedError):
        stand_in.evaluate(model(WELL))


def test_a_long_evaluation_is_told(
    stand_in: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench_module, "TELL_EVERY_S", 0.05)
    monkeypatch.setattr(stand_in, "_seconds_max", 0.4)
    with caplog.at_level("INFO"):
        problem(stand_in, HANGS)
    assert "evaluating, 0 s of 0.4 at most" in caplog.text


def test_it_ends_with_the_evaluator_even_in_the_middle_of_an_evaluation(tmp_path: Path) -> None:
    """A parent that is killed closes the pipe, and nothing else."""
    path = tmp_path / "mine.py"
    path.write_text(REAL)
    bench = Bench(str(path))
    bench.open()
    child = bench._running()
    assert child.process.stdin is not None
    task = load_task(str(path))
    values = initial_parameters(task, 0)
    _evaluate_and_print(bench, values)
    _what_it_raises(bench, values)
    threading.Thread(target=_hangs, args=(bench, values + 4), daemon=True).start()
    time.sleep(0.2)
    child.process.stdin.close()
    assert child.process.wait(20) == 0


def _hangs(bench: Bench, values: Any) -> None:
    with contextlib.suppress(EvaluationProblem):
        bench.evaluate(values)


REAL: Final = """
import os, sys, time
import numpy as np
from torch import nn
import learning

METRIC = "accuracy"

def data():
    r = np.random.default_rng(1)
    x = r.normal(size=(200, 3))
    y = x[:, 0] > 0
    return learning.Dataset(train=(x[:100], y[:100]), test=(x[100:], y[100:]))

def model():
    return nn.Linear(3, 2)

def train(model, data, config):
    return learning.fit(model, data, config)

def evaluate(model, data):
    print("users print what they like")
    os.write(1, b"and write where they like")
    assert sys.stdin.read() == ""
    does = round(float(model.bias[0]))
    if does == 1:
        raise ValueError("not today")
    if does == 2:
        sys.exit(3)
    if does == 3:
        return {"loss": float("nan"), "accuracy": 0.5}
    if does == 4:
        time.sleep(600)
    return learning.score(model, data)
"""


def _evaluate_and_print(bench: Bench, values: Any) -> None:
    values[-2] = 0.0
    numbers = bench.evaluate(values)
    assert 0 <= numbers["accuracy"] <= 1
    parts = bench.parts(values, Metric("accuracy", higher_is_better=True))
    assert {"accuracy_class_0", "accuracy_cohort_0", "accuracy_worst_decile"} <= parts.keys()


def _what_it_raises(bench: Bench, values: Any) -> None:
    for does, name, text in [
        (1.0, "failed", "ValueError: not today"),
        (2.0, "failed", "SystemExit: 3"),
        (3.0, "not_finite", "reports the loss nan"),
    ]:
        values[-2] = does
        with pytest.raises(EvaluationProblem, match=text) as caught:
            bench.evaluate(values)
        assert caught.value.problem == name
        if name == "not_finite":
            assert caught.value.numbers["accuracy"] == 0.5
        else:
            assert "in evaluate():" in caught.value.trouble.where
    values[-2] = 0.0


def test_a_task_that_cannot_be_loaded_is_its_own_error(tmp_path: Path) -> None:
    bench = Bench(str(tmp_path / "nothing.py"), command=(sys.executable, "-c", REFUSES))
    with pytest.raises(UsageProblem) as caught:
        bench.open()
    error: FluvialError = caught.value
    assert (error.error_id, error.where, error.hint) == ("FLV-2202", "mine.py:1", "mend it")


REFUSES: Final = """
import sys
from stream_apps.evaluator.bench_messages import *
send(sys.stdout.buffer, Answer(trouble=Trouble("FLV-2202", "no", "mine.py:1", "mend it")))
"""
