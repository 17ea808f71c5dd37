"""A task whose data has natural parts runs with one device a part, in every command that makes devices up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from fluvial import cli
from fluvial.session.simulation import simulate

TASK = """
import numpy as np
from torch import nn
import learning

def side(seed, label):
    x = np.random.default_rng(seed).normal(size=(20, 2))
    return x, np.full(20, label)

def data():
    parts = {f"shop-{n}": side(n, n % 2) for n in range(3)}
    return learning.Dataset(parts=parts, test=side(9, 1))

def model():
    return nn.Linear(2, 2)

def train(model, data, config):
    assert len(data) <= 20 and len(set(data.y.tolist())) == 1, "one part each, as it is"
    return learning.fit(model, data, config)

def evaluate(model, data):
    return learning.score(model, data)
"""


@pytest.fixture
def task(tmp_path: Path) -> str:
    (tmp_path / "shops.py").write_text(TASK)
    return str(tmp_path / "shops.py")


def test_a_simulation_has_one_device_a_part(task: str) -> None:
    result = simulate(task, versions=3)
    assert {update.device for update in result.updates} == {0, 1, 2}
    assert result.failed_rounds.total == 0
    assert {update.device for update in simulate(task, devices=2, versions=2).updates} == {0, 1}
    with pytest.raises(UsageProblem) as caught:
        simulate(task, devices=4, versions=2)
    assert caught.value.error_id == "FLV-2232"


def test_a_run_says_which_devices_there_are(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", task, "--simulate", "--versions", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["versions"] == 2
    assert "3 devices, as the data has parts: shop-0, shop-1, shop-2" in err
    assert "simulating 3 devices" in err


def test_more_devices_are_an_error_before_anything_starts(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", task, "--devices", "4", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "FLV-2232"


@pytest.mark.parametrize("way", [["run", "--simulate"], ["run"], ["demo", "--task"]])
def test_a_task_without_data_for_all_says_what_it_is_for(
    way: list[str], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(task)
    path.write_text(TASK.replace("def data():", "def local_data(path):"))
    assert cli.main([*way, task]) == 4
    err = capsys.readouterr().err
    assert "error[FLV-2233]" in err
    assert "fluvial device run --data PATH" in err
