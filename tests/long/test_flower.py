"""Real apps on the real ``flwr``, unmodified, as Fluvial's devices: it has an environment of its own (ADR 50)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from fluvial import cli
from fluvial.flower.files import find_app, write_task_of
from fluvial.session.simulation import simulate
from learning.task import Task, load_task
from learning.training import evaluate_parameters, train_locally
from producers.fleet.failures import FailedRound
from tests.flower_apps import LINEAR, LINEAR_SERVER, python_with_flower, template

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

BAD = (
    LINEAR
    + """

class Bad(Line):
    def answer(self, arrays):
        return {
            1: [arrays[0], np.full(1, np.nan)],
            2: [arrays[0], np.zeros(2)],
            3: arrays[:1],
            4: [*arrays, arrays[0]],
            5: [arrays[0], np.array(["text"])],
            6: None,
        }.get(self.number, arrays)

    def fit(self, parameters, config):
        if self.number == 7:
            raise ValueError("no data at this site")
        if self.number == 8:
            import os
            os._exit(3)
        return super().fit(parameters, config)


app = ClientApp(client_fn=lambda context: Bad(context.node_config["partition-id"], 1).to_client())
"""
)

ONE = """
from line import Line

client = Line(0, 1)


class One(Line):
    def __init__(self):
        super().__init__(0, 1)
"""


@pytest.fixture(autouse=True)
def real_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_FLOWER_PYTHON", str(python_with_flower()))


def task_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flower: str, server: str = "", devices: int = 4
) -> Task:
    monkeypatch.chdir(folder)
    path, _ = write_task_of(find_app(flower, server), devices)
    return load_task(str(path))


def line(folder: Path, text: str = LINEAR) -> Path:
    (folder / "line.py").write_text(text)
    (folder / "lineserver.py").write_text(LINEAR_SERVER)
    return folder


def test_the_numpy_template_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(template("quickstart-numpy", tmp_path))
    assert (
        cli.main(["run", "--flower", ".", "--devices", "3", "--simulate", "--versions", "2", "--json"]) == 0
    )
    out, _ = capsys.readouterr()
    document = json.loads(out)
    assert document["verdicts"] == {"accepted": sum(document["verdicts"].values())}
    assert document["metric"]["name"] == "random_metric[0]"
    assert document["failed_rounds"]["rounds"] == 0


def test_the_torch_template_learns_and_is_evaluated_by_its_server_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(template("quickstart-pytorch", tmp_path), monkeypatch, "pytorchexample.client_app:app")
    assert list(task.model())[:5] == [
        *("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    ]
    layout = task.anatomy.layout
    assert layout.buffers.names == ("norm.running_mean", "norm.running_var")
    assert "norm.num_batches_tracked" not in layout.names
    result = simulate(task, versions=6)
    assert result.failed_rounds.total == 0
    assert result.quality.metric is not None
    assert result.quality.metric.name == "accuracy"
    assert result.versions[-1].metrics["accuracy"] > 0.8


def test_a_client_of_before_messages_begins_with_its_own_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(line(tmp_path), monkeypatch, "line:app")
    assert [array.tolist() for array in task.model().values()] == [[0.0], [0.0]]
    result = simulate(task, versions=5)
    assert result.versions[-1].metrics["mae"] < 0.1
    assert result.versions[-1].metrics["eval_partition"] == 4, "a partition that no device has"


@pytest.mark.parametrize("flower", ["line:client_fn", "one:client", "one:One"])
def test_a_function_a_client_and_a_class_do_as_well(
    flower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line(tmp_path) / "one.py").write_text(ONE)
    result = simulate(task_of(tmp_path, monkeypatch, flower), versions=2)
    assert result.failed_rounds.total == 0
    assert result.versions[-1].metrics["mae"] < 0.5


def test_a_server_of_before_messages_says_the_first_model_the_steps_and_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(line(tmp_path), monkeypatch, "line:app", "lineserver:app")
    first = np.array([0.5, 0.0], np.float32)
    assert [array.tolist() for array in task.model().values()] == [[0.5], [0.0]]
    assert evaluate_parameters(task, first, task.data().test) == {"loss": 2.5, "slope_error": 2.5}
    x = np.random.default_rng(1).uniform(-1, 1, 21)
    a, b = first.astype(np.float64)
    for _ in range(5):
        error = a * x + b - (3 * x + 1)
        a, b = a - 0.3 * (error * x).mean(), b - 0.3 * error.mean()
    trained = train_locally(task, first, task.data().parts["client-1"], task.config)
    np.testing.assert_allclose(trained.delta, [a - 0.5, b], rtol=1e-5)
    assert trained.num_examples == len(x)


def test_the_same_round_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(template("quickstart-numpy", tmp_path), monkeypatch, ".")
    first, part = np.ones(1, np.float32), task.data().parts["client-1"]
    one, again, later = (
        train_locally(task, first, part, task.config.at(seed=3, version=version)).delta
        for version in (5, 5, 6)
    )
    assert one == again != later


def test_bad_clients_sit_their_rounds_out_each_by_name_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(line(tmp_path, BAD), monkeypatch, "line:app", devices=10)
    told: dict[int, tuple[str, str]] = {}

    def on_failure(failed: FailedRound, _first: object) -> None:
        told.setdefault(int(failed.device.rpartition("-")[2]), (failed.error_id, failed.message))

    result = simulate(task, versions=3, on_failure=on_failure)
    assert {update.device for update in result.updates} == {0, 9}
    assert set(result.verdicts) == {"accepted"}
    expected = {
        1: ("FLV-2262", "1 with 1 of 1 numbers NaN or infinite"),
        2: ("FLV-2262", "1 of shape [2], and the model's is [1]"),
        3: ("FLV-2262", "1 arrays, and the model has 2"),
        4: ("FLV-2262", "3 arrays, and the model has 2"),
        5: ("FLV-2262", "not of numbers"),
        6: ("FLV-2208", ""),
        7: ("FLV-2208", "ValueError: no data at this site"),
        8: ("FLV-2263", "exit code 3"),
    }
    assert {number: error_id for number, (error_id, _) in told.items()} == {
        number: error_id for number, (error_id, _) in expected.items()
    }
    assert [number for number, (_, text) in expected.items() if text not in told[number][1]] == []


@pytest.mark.parametrize(
    ("text", "flower", "said"),
    [
        ("import nowhere", "line:app", "ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1", "line:app", "line has no app; it has x"),
        ("app = 1", "line:app", "line:app is int, and has to be a ClientApp"),
        (
            "from flwr.clientapp import ClientApp\napp = ClientApp()",
            "line:app",
            "says what the first model is",
        ),
    ],
)
def test_what_is_no_app_is_told_before_anything_runs(
    text: str, flower: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageProblem) as raised:
        task_of(line(tmp_path, text), monkeypatch, flower)
    assert raised.value.error_id == "FLV-2261"
    assert said in raised.value.message


def test_a_mistake_in_the_app_is_shown_at_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageProblem) as raised:
        task_of(line(tmp_path, "def f():\n    return 1 / 0\n\nf()\n"), monkeypatch, "line:app")
    assert "ZeroDivisionError" in raised.value.message
    assert raised.value.where.endswith("line.py:2 in f(): return 1 / 0")
