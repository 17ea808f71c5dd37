"""A local round: what it returns, that it is repeatable, and that rounds do not leak into each other."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from aggregation.errors import UsageProblem
from learning.config import TrainConfig
from learning.datasets import Examples, digits
from learning.task import Task, load_task
from learning.tensors import initial_parameters
from learning.training import LocalResult, evaluate_parameters, train_locally

NOISY = """
import random
from dataclasses import replace
import numpy as np
import torch
from torch import nn
import learning

DATA = "digits"

def model():
    norm = nn.BatchNorm1d(16, momentum=None)
    return nn.Sequential(nn.Linear(64, 16), norm, nn.Dropout(0.5), nn.Linear(16, 10))

def train(model, data, config):
    metrics = learning.fit(model, data, config, nn.functional.cross_entropy)
    model[0].weight.requires_grad_(False)
    draws = {"torch": torch.rand(()), "numpy": np.random.rand(), "python": random.random()}
    return metrics | draws

def evaluate(model, data):
    return learning.score(model, data)
"""


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("task") / "noisy.py"
    path.write_text(NOISY, encoding="utf-8")
    return load_task(str(path))


def shard(count: int = 36) -> Examples:
    return digits().train.subset(np.arange(count))


def same(one: LocalResult, other: LocalResult) -> bool:
    return one.delta.tobytes() == other.delta.tobytes() and one.metrics == other.metrics


def test_a_round_returns_the_difference_to_its_base(task: Task) -> None:
    base = initial_parameters(task, 0)
    before = base.copy()
    result = train_locally(task, base, shard(), task.config)
    assert result.delta.dtype == np.float32
    assert result.delta.shape == base.shape
    assert result.num_examples == 36
    assert np.array_equal(base, before)
    after = evaluate_parameters(task, base + result.delta, shard())
    assert after["loss"] < evaluate_parameters(task, base, shard())["loss"]


@pytest.mark.parametrize(
    ("said", "counted"), [(120, 120), (1.0, 1), (2.5, 2), (1e300, 1 << 53), (0, 36), (0.5, 36), (-3, 36)]
)
def test_a_task_may_say_itself_how_many_examples_it_trained_on(task: Task, said: float, counted: int) -> None:
    own = ModuleType("own")
    vars(own).update(vars(task._module))
    vars(own)["train"] = lambda *round_: task._module.train(*round_) | {"num_examples": said}
    base, tasks = initial_parameters(task, 0), replace(task, _module=own)
    result = train_locally(tasks, base, shard(), task.config)
    assert result.num_examples == counted
    assert result.metrics["num_examples"] == said


def test_a_read_only_base_is_welcome(task: Task) -> None:
    base = initial_parameters(task, 0)
    base.setflags(write=False)
    assert train_locally(task, base, shard(), task.config).num_examples == 36


def test_the_same_seed_gives_the_same_bits_also_after_other_rounds(noisy: Task) -> None:
    base = initial_parameters(noisy, 0)
    first = train_locally(noisy, base, shard(), TrainConfig(seed=1, version=2))
    train_locally(noisy, base + 1, shard(50), TrainConfig(seed=9))
    evaluate_parameters(noisy, base, shard())
    assert same(train_locally(noisy, base, shard(), TrainConfig(seed=1, version=2)), first)


@pytest.mark.parametrize("config", [TrainConfig(seed=2, version=2), TrainConfig(seed=1, version=3)])
def test_another_device_or_version_gives_another_round(noisy: Task, config: TrainConfig) -> None:
    base = initial_parameters(noisy, 0)
    first = train_locally(noisy, base, shard(), TrainConfig(seed=1, version=2))
    assert not same(train_locally(noisy, base, shard(), config), first)


def test_threads_get_the_same_bits_as_one_after_the_other(noisy: Task) -> None:
    base = initial_parameters(noisy, 0)
    configs = [TrainConfig(seed=seed, epochs=2) for seed in range(8)]
    alone = [train_locally(noisy, base, shard(), config) for config in configs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda config: train_locally(noisy, base, shard(), config), configs))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_a_round_leaves_the_process_as_it_was(noisy: Task) -> None:
    def seed_all() -> None:
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)

    def draw_all() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    threads = torch.get_num_threads()
    seed_all()
    expected = draw_all()
    seed_all()
    train_locally(noisy, initial_parameters(noisy, 0), shard(), TrainConfig())
    assert draw_all() == expected
    assert torch.get_num_threads() == threads
    assert torch.get_deterministic_debug_mode() == 0


def test_evaluation_is_repeatable_and_without_dropout(noisy: Task) -> None:
    base = initial_parameters(noisy, 0)
    assert evaluate_parameters(noisy, base, shard()) == evaluate_parameters(noisy, base, shard())


def test_a_round_that_runs_away_is_an_error_not_an_update(task: Task) -> None:
    huge = np.full_like(initial_parameters(task, 0), 1e30)
    with pytest.raises(UsageProblem) as caught:
        train_locally(task, huge, shard(), TrainConfig(learning_rate=1000.0))
    assert caught.value.error_id == "FLV-2208"
    assert "learning_rate" in caught.value.hint


def test_parameters_of_another_model_are_refused(task: Task) -> None:
    with pytest.raises(UsageProblem) as caught:
        evaluate_parameters(task, np.zeros(3, dtype=np.float32), shard())
    assert caught.value.error_id == "FLV-2213"


def test_regression_targets_are_trained_and_scored_without_an_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "line.py"
    path.write_text(
        "import numpy as np\nfrom torch import nn\nimport learning\n"
        "def data():\n    x = np.linspace(-1, 1, 60)[:, None]\n"
        "    return learning.Dataset(train=(x, 2 * x), test=(x, 2 * x))\n"
        "def model():\n    return nn.Linear(1, 1)\n"
        "def train(model, data, config):\n"
        "    return learning.fit(model, data, config, nn.functional.mse_loss)\n"
        "def evaluate(model, data):\n    return learning.score(model, data, nn.functional.mse_loss)\n",
        encoding="utf-8",
    )
    task = load_task(str(path))
    base = initial_parameters(task, 0)
    result = train_locally(task, base, task.data().train, TrainConfig(epochs=30))
    metrics = evaluate_parameters(task, base + result.delta, task.data().test)
    assert set(metrics) == {"loss"}
    assert metrics["loss"] < 1e-3


def test_a_device_says_the_most_frequent_cohort_of_its_own_examples(tmp_path: Path) -> None:
    path = tmp_path / "grouped.py"
    path.write_text(NOISY + "\ndef cohorts(data):\n    return data.labels % 3 + 4\n", encoding="utf-8")
    grouped = load_task(str(path))
    data = shard()
    result = train_locally(grouped, initial_parameters(grouped, 0), data, TrainConfig())
    assert result.metrics["cohort"] == np.bincount(data.labels % 3).argmax() + 4


def test_a_cohort_that_the_training_reports_itself_is_the_one_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "told.py"
    text = NOISY.replace("metrics | draws", 'metrics | {"cohort": 42}')
    path.write_text(text + "\ndef cohorts(data):\n    return data.labels\n", encoding="utf-8")
    told = load_task(str(path))
    result = train_locally(told, initial_parameters(told, 0), shard(), TrainConfig())
    assert result.metrics["cohort"] == 42.0


def test_cohorts_that_cannot_be_used_on_a_devices_data_are_a_warning_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "held_out_only.py"
    path.write_text(NOISY + "\ndef cohorts(data):\n    return np.arange(360)\n", encoding="utf-8")
    held_out_only = load_task(str(path))
    base = initial_parameters(held_out_only, 0)
    for _ in range(2):
        assert "cohort" not in train_locally(held_out_only, base, shard(), TrainConfig()).metrics
    (warning,) = caplog.messages
    assert "say no cohort" in warning and "FLV-7040" in warning


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("shape", ["nn.BatchNorm1d(4)", "nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))"])
def test_fit_gives_batch_normalization_no_batch_of_one_and_leaves_no_example_out(
    tmp_path: Path, count: int, batch_size: int, shape: str
) -> None:
    path = tmp_path / "norm.py"
    path.write_text(
        "import numpy as np\nfrom torch import nn\nimport learning\nDATA = 'digits'\nseen = []\n"
        f"def model():\n    net = nn.Sequential({shape}, nn.Linear(4, 2))\n"
        "    net.register_forward_pre_hook(lambda m, i: seen.append(len(i[0])))\n    return net\n"
        "def train(model, data, config):\n    return learning.fit(model, data, config) | {'seen': sum(seen)}\n"
        "def evaluate(model, data):\n    return learning.score(model, data)\n",
        encoding="utf-8",
    )
    task = load_task(str(path))
    random = np.random.default_rng(0)
    data = Examples(random.normal(size=(count, 4)), random.integers(0, 2, count))
    result = train_locally(
        task, initial_parameters(task, 0), data, TrainConfig(epochs=1, batch_size=batch_size)
    )
    assert result.metrics["seen"] == count
    assert np.count_nonzero(result.delta) > 0


def test_fit_leaves_batches_as_they_are_where_nothing_normalizes_over_them(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    text = "import numpy as np\nfrom torch import nn\nimport learning\nDATA = 'digits'\nseen = []\n"
    text += (
        "class Norm(nn.BatchNorm1d):\n    def train(self, mode=True):\n        return super().train(False)\n"
    )
    text += "def model():\n    net = nn.Sequential(Norm(4), nn.Linear(4, 2))\n"
    text += "    net.register_forward_pre_hook(lambda m, i: seen.append(len(i[0])))\n    return net\n"
    text += (
        "def train(model, data, config):\n    return learning.fit(model, data, config) | {'last': seen[-1]}\n"
    )
    text += "def evaluate(model, data):\n    return learning.score(model, data)\n"
    path.write_text(text, encoding="utf-8")
    task = load_task(str(path))
    data = Examples(np.ones((33, 4)), np.zeros(33, np.int64))
    result = train_locally(task, initial_parameters(task, 0), data, TrainConfig(epochs=1, batch_size=16))
    assert result.metrics["last"] == 1
