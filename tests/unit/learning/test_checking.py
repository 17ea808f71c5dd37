"""One batch before anything starts: what it finds, what it does not mistake for a mistake, and when it gives up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from aggregation.errors import FluvialError
from learning.checking import check_task
from learning.task import Task, load_task

TASK = """
import time
import numpy as np
import torch
from torch import nn
import learning

CONFIG = {{"epochs": 50, "batch_size": 8, "learning_rate": 0.05}}

def data():
    {data}
    x = np.linspace(-1, 1, 2000).reshape(1000, 2).astype("float32")
    y = np.arange(1000) // 100  # sorted by class
    return learning.Dataset(train=(x, y), test=(x, y))

def model():
    return nn.Linear(2, 10)

def train(model, data, config):
    {train}
    return learning.fit(model, data, config)

def evaluate(model, data):
    {evaluate}
    return learning.score(model, data)
"""
ENOUGH_S = 3.0
"""For one batch of a small task, on a machine that has much other work."""


def task(folder: Path, *, data: str = "", train: str = "", evaluate: str = "") -> Task:
    path = folder / "mine.py"
    parts = {"data": data, "train": train, "evaluate": evaluate}
    path.write_text(TASK.format(**{name: text or "pass" for name, text in parts.items()}), encoding="utf-8")
    return load_task(str(path))


def test_one_epoch_of_one_batch_and_an_evaluation(tmp_path: Path) -> None:
    report = check_task(task(tmp_path, train="assert (len(data), config.epochs) == (8, 1)"))
    assert report.trained["loss"] > 0
    assert set(report.evaluated) == {"loss", "accuracy"}
    assert report.step_norm > 0
    assert (report.unfinished, report.notes) == ("", [])


def test_it_leaves_the_random_state_alone_and_is_repeatable(tmp_path: Path) -> None:
    loaded, before = task(tmp_path), torch.get_rng_state()
    assert check_task(loaded).evaluated == check_task(loaded).evaluated
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("where", "error_id"), [("data", "FLV-2205"), ("train", "FLV-2208"), ("evaluate", "FLV-2209")]
)
def test_a_mistake_is_shown_at_the_users_own_line(tmp_path: Path, where: str, error_id: str) -> None:
    with pytest.raises(FluvialError) as caught:
        check_task(task(tmp_path, **{where: "return undefined_name"}))
    assert caught.value.error_id == error_id
    assert f"in {where}(): return undefined_name" in caught.value.where
    assert "NameError: name 'undefined_name' is not defined" in caught.value.message
    assert "-X dev" not in caught.value.hint
    lines = caught.value.users_traceback.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "NameError: name 'undefined_name' is not defined"
    assert all(str(tmp_path) in line for line in lines if line.startswith("  File ")), "his frames only"


def test_a_traceback_goes_through_all_his_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n\ndef apply(model, x):\n    try:\n        return model(x)\n"
        "    except RuntimeError as error:\n        raise ValueError('wrong input') from error\n"
    )
    with pytest.raises(FluvialError) as caught:
        check_task(task(tmp_path, train="import nets; nets.apply(model, torch.zeros(1, 3))"))
    shown = caught.value.users_traceback
    assert shown.index("RuntimeError") < shown.index("ValueError: wrong input"), "the cause comes first"
    assert 'nets.py", line 5, in apply' in shown
    assert 'mine.py", line ' in shown
    assert "site-packages" not in shown
    assert "learning/" not in shown


@pytest.mark.parametrize(
    "place",
    [
        {"train": "assert len(data) > 50, 'a loader of its own with drop_last'"},
        {"evaluate": "assert len(data) == 1000, 'a score that needs all'"},
    ],
)
def test_what_fails_on_few_examples_only_is_no_mistake(tmp_path: Path, place: dict[str, str]) -> None:
    assert check_task(task(tmp_path, **place)).unfinished == ""


def test_a_train_that_changes_nothing_is_noted(tmp_path: Path) -> None:
    report = check_task(task(tmp_path, train="return {'loss': 1.0}"))
    assert report.step_norm == 0
    assert "in place" in report.notes[0]


@pytest.mark.parametrize("where", ["data", "train", "evaluate"])
def test_a_slow_task_is_left_after_a_while(tmp_path: Path, where: str) -> None:
    slow = task(tmp_path, **{where: "time.sleep(60)"})
    began = time.monotonic()
    report = check_task(slow, seconds_max=ENOUGH_S)
    assert report.unfinished == f"{where}()"
    assert time.monotonic() - began < 60


def test_no_handler_of_the_user_takes_the_end_of_the_time(tmp_path: Path) -> None:
    greedy = "try:\n        time.sleep(60)\n    except Exception:\n        time.sleep(60)"
    assert check_task(task(tmp_path, train=greedy), seconds_max=ENOUGH_S).unfinished == "train()"


def test_a_mistake_on_one_batch_counts_when_the_second_try_takes_too_long(tmp_path: Path) -> None:
    text = "assert len(data) > 8, 'few'; time.sleep(60)"
    with pytest.raises(FluvialError, match="AssertionError: few"):
        check_task(task(tmp_path, train=text), seconds_max=ENOUGH_S)


def test_off_the_main_thread_it_runs_to_its_end(tmp_path: Path) -> None:
    loaded, done = task(tmp_path, train="time.sleep(0.3)"), []
    thread = threading.Thread(target=lambda: done.append(check_task(loaded, seconds_max=0.1)))
    thread.start()
    thread.join()
    assert done[0].unfinished == ""


BAD_EXAMPLES = "if len(data) < 900 and (abs(data.x) > 1e20).any(): raise RuntimeError('a broken sensor')"


@pytest.mark.parametrize("bad", ["0", "[0, 999]", "slice(0, None, 83)", "slice(500, 510)"])
def test_examples_that_are_bad_on_some_devices_stop_nobody(tmp_path: Path, bad: str) -> None:
    """A run counts those devices' rounds and goes on with the others, so the check does not end it before."""
    loaded = task(tmp_path, train=BAD_EXAMPLES)
    path = loaded.path
    path.write_text(path.read_text().replace("    y = np", f"    x[{bad}] = 1e30\n    y = np"))
    report = check_task(load_task(str(path)))
    assert report.unfinished == "" and report.trained and report.evaluated
    if bad != "slice(500, 510)":
        assert any("on some of the examples it fails" in note for note in report.notes)


def test_a_mistake_that_every_example_shows_is_found_and_is_the_first_that_was_met(tmp_path: Path) -> None:
    with pytest.raises(FluvialError, match="every time"):
        check_task(task(tmp_path, train="raise RuntimeError('every time')"))
