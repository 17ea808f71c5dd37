"""What a user's task file may be, and what each mistake in it gets."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aggregation.errors import FluvialError, UsageProblem
from learning.config import TrainConfig
from learning.datasets import Dataset, Examples
from learning.task import Task, load_task, shipped_tasks

GOOD = """
import numpy as np
from torch import nn
import learning

def data():
    x = np.arange(40.0).reshape(20, 2) / 40
    return learning.Dataset(train=(x, x[:, 0] > 0.5), test=(x, x[:, 0] > 0.5))

def model():
    return nn.Linear(2, 2)

def train(model, data, config):
    return learning.fit(model, data, config, nn.functional.cross_entropy)

def evaluate(model, data):
    return learning.score(model, data)
"""


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder: Path, text: str, name: str = "mine.py") -> FluvialError:
    with pytest.raises(UsageProblem) as caught:
        load_task(written(folder, text, name))
    return caught.value


def test_a_file_of_four_functions_is_a_task(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, GOOD + "POLICY = {'buffer_updates': 7}\nCONFIG = {'epochs': 2}\n"))
    assert task.name == "mine"
    assert task.policy_overrides == {"buffer_updates": 7}
    assert task.config == TrainConfig(epochs=2)
    assert task.source_sha256 == hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert isinstance(task.model(), nn.Module)
    data = task.data()
    assert data is task.data()
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int64
    metrics = task.train(task.model(), data.train, task.config)
    assert metrics["loss"] > 0
    assert set(task.evaluate(task.model(), data.test)) == {"loss", "accuracy"}


def test_name_in_the_file_wins_over_the_file_name(tmp_path: Path) -> None:
    assert load_task(written(tmp_path, GOOD + "NAME = 'circle-2'\n", "My Task.py")).name == "circle-2"


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    load_task(written(tmp_path, GOOD))
    assert torch.equal(before, torch.get_rng_state())


def test_an_edited_file_is_loaded_anew(tmp_path: Path) -> None:
    load_task(written(tmp_path, GOOD))
    assert (
        load_task(written(tmp_path, GOOD.replace("Linear(2, 2)", "Linear(2, 3)"))).model().out_features == 3
    )


def test_a_file_beside_the_task_can_be_imported(tmp_path: Path) -> None:
    written(tmp_path, "WIDTH = 2\n", "beside_the_task.py")
    task = load_task(written(tmp_path, "from beside_the_task import WIDTH\n" + GOOD))
    assert task.name == "mine"


@pytest.mark.parametrize("name", ["breast_cancer", "charlm", "diabetes", "digits", "fashion"])
def test_shipped_tasks_load_by_name(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert sum(p.numel() for p in task.model().parameters()) < 110_000
    assert name in shipped_tasks()


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("digts", "did you mean digits?"),
        ("nowhere/at_all.py", "fluvial new at_all"),
        ("no such thing", "mine"),
    ],
)
def test_an_unknown_task_is_refused_with_a_way_on(reference: str, hint: str) -> None:
    with pytest.raises(UsageProblem, match="no task") as caught:
        load_task(reference)
    assert caught.value.error_id == "FLV-2200"
    assert hint in caught.value.hint


def test_a_path_without_its_suffix_is_completed_in_the_hint(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(UsageProblem) as caught:
        load_task(path.removesuffix(".py"))
    assert caught.value.hint == f"did you mean {path}?"


def test_a_folder_is_not_a_task(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="is a folder"):
        load_task(str(tmp_path))


def test_a_name_that_no_topic_can_have_is_refused(tmp_path: Path) -> None:
    problem = refused(tmp_path, GOOD, "My Task.py")
    assert problem.error_id == "FLV-2201"
    assert "'my-task'" in problem.hint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import os\nx = 1 / 0\n", "mine.py:2: x = 1 / 0"),
        ("def f(:\n", "mine.py:1: def f(:"),
        ("def g():\n    raise ValueError('deep')\ng()\n", "mine.py:2 in g(): raise ValueError('deep')"),
        ("raise SystemExit(3)\n", "mine.py:1: raise SystemExit(3)"),
    ],
)
def test_an_import_error_shows_the_users_own_line(tmp_path: Path, text: str, line: str) -> None:
    problem = refused(tmp_path, text)
    assert problem.error_id == "FLV-2202"
    assert problem.where.endswith(line)


def test_a_missing_package_is_named_with_its_install_command(tmp_path: Path) -> None:
    problem = refused(tmp_path, "import no_such_package.deep\n")
    assert (problem.error_id, problem.hint) == ("FLV-2202", "pip install no_such_package")


def test_a_missing_function_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    problem = refused(tmp_path, GOOD.replace("def evaluate", "def evalute"))
    assert problem.error_id == "FLV-2203"
    assert "evaluate()" in problem.message
    assert problem.hint == "rename evalute → evaluate"


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    problem = refused(tmp_path, "")
    assert "model(), train(), evaluate(), data()" in problem.message


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("None", "got NoneType"),
        ("nn.Identity", "got the class Identity"),
        ("nn.Identity()", "no trainable parameter"),
        ("nn.LazyLinear(3)", "lazy layer"),
        ("nn.Linear(2, 2, dtype=__import__('torch').cfloat)", "complex64"),
        ("nn.Linear(2)", "TypeError"),
        ("nn.utils.rnn.PackedSequence", "nn.Module"),
    ],
)
def test_an_unusable_model_is_refused_at_loading(tmp_path: Path, model: str, expected: str) -> None:
    problem = refused(tmp_path, GOOD.replace("nn.Linear(2, 2)", model))
    assert problem.error_id == "FLV-2204"
    assert expected in problem.message


def test_integer_buffers_do_not_trouble_a_model(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, GOOD.replace("nn.Linear(2, 2)", "nn.BatchNorm1d(2)")))
    assert isinstance(task.model(), nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "learning.Dataset(train=(np.ones((3, 2)), np.ones(2)), test=(np.ones((1, 2)), [1]))",
            "x has 3 examples and y",
        ),
        (
            "learning.Dataset(train=([[np.nan]], [1]), test=([[1.0]], [1]))",
            "malformed: train: x has 1 values",
        ),
        ("learning.Dataset(train=([[1.0]], [1]), test=([[1.0, 2.0]], [1]))", "must be equal"),
        ("learning.Dataset(train=([], []), test=([[1.0]], [1]))", "empty"),
        ("learning.Dataset(train=(['a'], [1]), test=([[1.0]], [1]))", "array of numbers"),
        ("learning.Dataset(train=[[1.0]], test=([[1.0]], [1]))", "pair (x, y)"),
        ("(1, 2)", "must return a learning.Dataset, got tuple"),
        ("open('no-such-file.csv')", "FileNotFoundError"),
    ],
)
def test_malformed_data_is_refused_when_it_is_needed(tmp_path: Path, body: str, expected: str) -> None:
    start = GOOD.index("def data")
    text = GOOD[:start] + f"def data():\n    return {body}\n\n" + GOOD[GOOD.index("def model") :]
    task = load_task(written(tmp_path, text))
    with pytest.raises(UsageProblem) as caught:
        task.data()
    assert caught.value.error_id == "FLV-2205"
    assert expected in caught.value.message
    assert "mine.py" in caught.value.where


def test_an_unknown_data_name_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    text = GOOD[GOOD.index("def model") :]
    problem = refused(tmp_path, "from torch import nn\nDATA = 'digit'\n" + text)
    assert (problem.error_id, problem.hint) == ("FLV-2205", "did you mean DATA = 'digits'?")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CONFIG = {'epoch': 3}", "'epoch'"),
        ("CONFIG = {'learning-rate': 3}", "'learning-rate'"),
        ("CONFIG = {'BatchSize': 3}", "'BatchSize'"),
        ("CONFIG = {'seed': 3}", "belongs to the device and the round"),
        ("CONFIG = {'version': 3}", "belongs to the device and the round"),
        ("CONFIG = {'extra': 3}", "a name of the config's own"),
        ("CONFIG = {'at': 3}", "a name of the config's own"),
        ("CONFIG = {'epochs': 0}", "from 1 to"),
        ("CONFIG = {'epochs': 2.5}", "an integer"),
        ("CONFIG = {'learning_rate': float('nan')}", "got nan"),
        ("CONFIG = [1]", "must be a dict"),
        ("POLICY = {1: 2}", "must be a dict with text keys"),
    ],
)
def test_bad_settings_are_refused_with_key_and_value(tmp_path: Path, line: str, expected: str) -> None:
    problem = refused(tmp_path, GOOD + line)
    assert problem.error_id == "FLV-2207"
    assert expected in problem.message
    assert "mine.py" in problem.where


def test_a_tasks_own_settings_reach_train_by_name_and_by_extra(tmp_path: Path) -> None:
    own = "{'momentum': 0.9, 'layers': [64, 32], 'lr': 1, 'learning_rate_min': 0.01, 'warmup_epochs': 2, 'epochs': 3}"
    config = load_task(written(tmp_path, f"{GOOD}CONFIG = {own}\n")).config.at(seed=5, version=9)
    assert (config.momentum, config.layers, config.epochs, config.seed) == (0.9, [64, 32], 3, 5)
    assert dict(config.extra) == {
        "momentum": 0.9, "layers": [64, 32], "lr": 1, "learning_rate_min": 0.01, "warmup_epochs": 2,
    }  # fmt: skip
    for same in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert same == config and same.momentum == 0.9
    assert hash(config) == hash(config.at(seed=5, version=9))
    with pytest.raises(AttributeError, match="its own settings are momentum, layers"):
        _ = config.momentm
    assert not hasattr(TrainConfig(), "anything")


def test_a_setting_that_train_asks_for_and_nobody_gave_is_named_at_its_line(tmp_path: Path) -> None:
    task, data = changed(tmp_path, "train(model, data, config)", "return {'loss': config.dropout}")
    with pytest.raises(UsageProblem, match="the config has no 'dropout'") as caught:
        task.train(task.model(), data.train, task.config)
    assert caught.value.error_id == "FLV-2208" and "in train()" in caught.value.where


def test_given_settings_go_over_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "CONFIG = {'momentum': 0.9, 'epochs': 3}\n")
    given = {"momentum": 0.5, "epochs": 7, "name": "adam"}
    for task in (load_task(path, given), load_task(path).with_settings(given)):
        assert (task.config.momentum, task.config.epochs, task.config.name) == (0.5, 7, "adam")


@pytest.mark.parametrize(
    ("given", "error_id", "hint"),
    [
        ({"momentm": 0.5}, "FLV-2245", "`--set momentum=VALUE`"),
        ({"epoch": 5}, "FLV-2207", "did you mean 'epochs'?"),
        ({"epochs": 0}, "FLV-2207", "CONFIG = {'epochs'"),
        ({"version": 1}, "FLV-2207", "config.version"),
    ],
)
def test_given_settings_that_were_meant_otherwise_are_refused(
    tmp_path: Path, given: dict[str, Any], error_id: str, hint: str
) -> None:
    path = written(tmp_path, GOOD + "CONFIG = {'momentum': 0.9}\n")
    with pytest.raises(UsageProblem) as caught:
        load_task(path, given)
    assert caught.value.error_id == error_id and hint in caught.value.hint


def changed(tmp_path: Path, function: str, body: str) -> tuple[Task, Dataset]:
    task = load_task(written(tmp_path, GOOD + f"\ndef {function}:\n    {body}\n"))
    return task, task.data()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return None", "got NoneType"),
        ("return {'accuracy': 1.0}", "got ['accuracy']"),
        ("return {'loss': 'low'}", "'loss' is str"),
        ("return {'loss': float('inf')}", "ran away"),
        ("return model(7)", "TypeError"),
    ],
)
def test_a_train_function_that_fails_is_shown_at_its_line(tmp_path: Path, body: str, expected: str) -> None:
    task, data = changed(tmp_path, "train(model, data, config)", body)
    with pytest.raises(UsageProblem) as caught:
        task.train(task.model(), data.train, task.config)
    assert caught.value.error_id == "FLV-2208"
    assert expected in caught.value.message
    assert "mine.py" in caught.value.where


def test_an_evaluate_function_that_fails_has_its_own_id(tmp_path: Path) -> None:
    task, data = changed(tmp_path, "evaluate(model, data)", "return model.no_such_thing")
    with pytest.raises(UsageProblem) as caught:
        task.evaluate(task.model(), data.test)
    assert caught.value.error_id == "FLV-2209"
    assert caught.value.where.endswith("in evaluate(): return model.no_such_thing")


def test_metrics_may_be_tensors_and_numpy_numbers(tmp_path: Path) -> None:
    body = "import torch; return {'loss': torch.tensor(0.5), 'f1': np.float32(0.25)}"
    task, data = changed(tmp_path, "evaluate(model, data)", body)
    assert task.evaluate(task.model(), data.test) == {"loss": 0.5, "f1": 0.25}


def test_settings_of_one_round_come_from_device_and_version() -> None:
    config = TrainConfig(epochs=3).at(seed=5, version=9)
    assert (config.seed, config.version, config.epochs) == (5, 9, 3)


def test_a_subset_keeps_the_order_asked_for() -> None:
    examples = Examples(np.arange(6.0).reshape(3, 2), np.array([4, 5, 6]))
    assert list(examples.subset([2, 0]).y) == [6, 4]
    assert len(examples) == 3
