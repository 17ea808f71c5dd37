"""A Flower app as a task: what is refused before, while and after it runs, and what its numbers are called.

What the real ``flwr`` makes of real apps is in ``tests/long/test_flower.py``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.flower.app import FlowerApp, _with_loss, parse_node_config
from fluvial.flower.files import find_app, write_task_of
from learning.task import load_task
from tests.flower_apps import template


@pytest.fixture
def app(tmp_path: Path) -> FlowerApp:
    return FlowerApp("client:app", folder=tmp_path, devices=3)


def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in the interpreter's place."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("FLUVIAL_FLOWER_PYTHON", str(path))


# -- the process


@pytest.mark.skipif(importlib.util.find_spec("flwr") is not None, reason="this interpreter has flwr")
def test_an_interpreter_without_flower_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLUVIAL_FLOWER_PYTHON", raising=False)
    monkeypatch.chdir(template("quickstart-numpy", tmp_path))
    path, _ = write_task_of(find_app("."), None)
    with pytest.raises(EnvironmentProblem, match="no Flower that can be used: ModuleNotFoundError") as raised:
        load_task(str(path))
    assert raised.value.error_id == "FLV-2260"
    assert sys.executable in raised.value.message


def test_an_interpreter_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: FlowerApp
) -> None:
    monkeypatch.setenv("FLUVIAL_FLOWER_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(EnvironmentProblem, match=r"nowhere cannot be started.*No such file") as raised:
        app.model()
    assert raised.value.error_id == "FLV-2260"
    assert "fluvial[flower]" in raised.value.hint


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 7", "exit code 7"),
        ("kill -9 $$", "exit code -9"),
        ("echo what is this; cat > /dev/null", "what is thi"),
    ],
)
def test_a_process_that_ends_or_babbles_is_an_error_and_not_waited_for(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: FlowerApp
) -> None:
    interpreter(tmp_path, monkeypatch, script)
    with pytest.raises(UsageProblem, match=said) as raised:
        app.model()
    assert raised.value.error_id == "FLV-2263"


# -- what a client returns


MODEL: dict[str, np.ndarray] = {
    "w": np.ones((2, 3), np.float32),
    "count": np.array(4, np.int64),
    "b": np.zeros(3, np.float64),
}
NEW: list[np.ndarray] = [np.full((2, 3), 2.0), np.array(9), np.full(3, 5.0, np.float32)]


def take(app: FlowerApp, names: list[str], arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    model = {name: array.copy() for name, array in MODEL.items()}
    app._take(model, names, arrays, "the client of partition-id=1")
    return model


def test_what_is_learned_is_taken_in_the_models_types_and_what_counts_stays(app: FlowerApp) -> None:
    model = take(app, ["w", "count", "b"], NEW)
    assert {name: (array.dtype, array.shape) for name, array in model.items()} == {
        name: (array.dtype, array.shape) for name, array in MODEL.items()
    }
    assert model["w"].max() == 2
    assert model["b"].max() == 5
    assert model["count"] == 4


@pytest.mark.parametrize(
    ("names", "arrays", "said"),
    [
        (["w", "count"], NEW[:2], "2 arrays, and the model has 3"),
        ([], [], "0 arrays, and the model has 3"),
        (["w", "count", "c"], NEW, "an array 'c', and the model's are w, count, b"),
        (["w", "count", "b"], [NEW[0].T, *NEW[1:]], r"w of shape \[3, 2\], and the model's is \[2, 3\]"),
        (["w", "count", "b"], [*NEW[:2], np.full(3, np.nan)], "b with 3 of 3 numbers NaN or infinite"),
        (["w", "count", "b"], [NEW[0] * np.inf, *NEW[1:]], "w with 6 of 6 numbers NaN or infinite"),
    ],
)
def test_what_is_no_update_names_the_first_array_that_differs_and_who_sent_it(
    names: list[str], arrays: list[np.ndarray], said: str, app: FlowerApp
) -> None:
    with pytest.raises(UsageProblem, match=said) as raised:
        take(app, names, arrays)
    assert raised.value.error_id == "FLV-2262"
    assert "the client of partition-id=1" in raised.value.message


# -- what its numbers are called


@pytest.mark.parametrize(
    ("reported", "told"),
    [
        ({"accuracy": 0.9, "loss": 1.5}, {"loss": 1.5, "accuracy": 0.9}),
        ({"eval_loss": 2.0, "eval_acc": 0.5}, {"loss": 2.0, "eval_acc": 0.5}),
        ({"test_logloss": 0.4, "accuracy": 0.8}, {"loss": 0.4, "accuracy": 0.8}),
        ({"random_metric": 0.3}, {"loss": 0.0, "random_metric": 0.3}),
        ({"loss": 1.0, "seconds": 3.0}, {"loss": 1.0, "eval_seconds": 3.0}),
        ({}, {"loss": 0.0}),
    ],
)
def test_the_loss_is_what_is_called_so_and_every_other_number_keeps_its_name(
    reported: dict[str, float], told: dict[str, float]
) -> None:
    assert list(_with_loss(reported).items()) == list(told.items())


# -- nodes


def test_a_device_a_partition_and_one_more_to_evaluate_on(app: FlowerApp) -> None:
    data = app.data()
    assert list(data.parts) == ["client-0", "client-1", "client-2"]
    assert app._node(data.parts["client-2"]) == {"partition-id": 2, "num-partitions": 4}
    assert app._node(data.test) == {"partition-id": 3, "num-partitions": 4}
    app._central = True
    assert app._node(app.data().test) is None
    assert app._node(data.parts["client-2"]) == {"partition-id": 2, "num-partitions": 3}


def test_a_real_node_is_what_its_node_config_says(app: FlowerApp) -> None:
    one = app.local_data("partition-id=0 num-partitions=2")
    other = app.local_data("data-path='/srv/a b.csv' site=north")
    assert app._node(one) == {"partition-id": 0, "num-partitions": 2}
    assert app._node(other) == {"data-path": "/srv/a b.csv", "site": "north"}


@pytest.mark.parametrize("text", ["", "/srv/data.csv", "partition-id", "a=1 b"])
def test_what_is_no_node_config_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="node config") as raised:
        parse_node_config(text, "mine.py")
    assert raised.value.error_id == "FLV-2234"


@pytest.mark.parametrize("devices", [0, 10_001])
def test_an_app_has_at_least_one_device_and_not_too_many(devices: int, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="from 1 to 10000"):
        FlowerApp("client:app", folder=tmp_path, devices=devices)
