"""Natural parts of a task's data, one a device; and examples that a device reads itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from learning.checking import check_task
from learning.datasets import Dataset, Examples, digits
from learning.parts import device_data, device_ids, devices_of, part_of
from learning.task import Task, load_task

TEST = (np.zeros((4, 2)), np.arange(4))


def side(count: int, value: float = 0.0, **arrays: Any) -> tuple[Any, Any]:
    return arrays.get("x", np.full((count, 2), value)), arrays.get("y", np.arange(count) % 2)


HOSPITALS = {"hospital-a": side(3, 1.0), "Hospital B": side(5, 2.0), 7: side(2, 3.0)}


def refused(**arguments: Any) -> str:
    with pytest.raises(UsageProblem) as caught:
        Dataset(**arguments)
    assert caught.value.error_id == "FLV-2205"
    return caught.value.message


def test_parts_are_devices_by_name_in_their_order() -> None:
    data = Dataset(parts=HOSPITALS, test=TEST)
    assert list(data.parts) == ["hospital-a", "hospital-b", "7"]
    assert devices_of(data, None, 40) == 3
    assert [len(examples) for examples in device_data(data, 3, 1.0, 0)] == [3, 5, 2]
    assert [float(examples.x[0, 0]) for examples in device_data(data, 2, 0.1, 9)] == [1.0, 2.0]
    assert device_ids(data, 2) == ["hospital-a", "hospital-b"]
    own = part_of(data, "hospital-b")
    assert own is not None
    assert own.x[0, 0] == 2.0
    assert part_of(data, "d-0001") is None


def test_all_training_examples_are_those_of_the_parts() -> None:
    data = Dataset(parts=HOSPITALS, test=TEST)
    assert len(data.train) == 10
    assert data.train is data.train
    assert sorted(set(data.train.x[:, 0].tolist())) == [1.0, 2.0, 3.0]


def test_more_devices_than_parts_are_refused_and_fewer_are_not() -> None:
    data = Dataset(parts=HOSPITALS, test=TEST)
    assert devices_of(data, 1, 40) == 1
    for wrong in (lambda: devices_of(data, 4, 40), lambda: device_data(data, 4, 1.0, 0)):
        with pytest.raises(UsageProblem, match="4 devices, and the task's data has 3 parts") as caught:
            wrong()
        assert caught.value.error_id == "FLV-2232"


def test_without_parts_the_data_is_split_among_any_number() -> None:
    data = Dataset(train=side(30), test=TEST)
    assert (devices_of(data, None, 12), devices_of(data, 5, 12)) == (12, 5)
    assert sum(map(len, device_data(data, 5, 1.0, 0))) == 30
    assert device_ids(data, 5) == []
    assert data.parts == {}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "one part or more"),
        ([side(3)], "must be a dict"),
        ({"a": side(3), "A": side(3)}, "two parts give the device id 'a'"),
        ({"***": side(3)}, "gives no device id"),
        ({"": side(3)}, "gives no device id"),
        ({"x" * 65: side(3)}, "gives no device id"),
        ({"a": side(0)}, "part 'a': x and y are empty"),
        ({"a": np.zeros(3)}, "part 'a' must be a pair"),
        ({"a": side(3), "b": side(3, x=np.zeros((3, 9)))}, "one b input has shape [9]"),
        ({"a": side(3), "b": side(3, y=np.zeros(3))}, "must be alike"),
        ({"a": side(3), "b": side(3, x=np.zeros((3, 2), int))}, "must be alike"),
    ],
)
def test_malformed_parts_are_refused(parts: Any, says: str) -> None:
    assert says in refused(parts=parts, test=TEST)


@pytest.mark.parametrize(
    "arguments",
    [
        {"test": TEST},
        {"train": side(3), "parts": {"a": side(3)}, "test": TEST},
        {"train": side(3)},
        {"parts": {"a": side(3)}},
    ],
)
def test_either_train_or_parts_and_always_a_test(arguments: Mapping[str, Any]) -> None:
    assert refused(**arguments)


# -- a device's own data

OWN = """
from pathlib import Path
import numpy as np
from torch import nn
import learning

def local_data(path):
    {body}

def model():
    return nn.Linear(2, 2)

def train(model, data, config):
    return learning.fit(model, data, config)

def evaluate(model, data):
    return learning.score(model, data)
"""
CSV = "table = np.loadtxt(path, delimiter=',')\n    return table[:, :-1], table[:, -1].astype(int)"


def own(folder: Path, body: str = CSV, top: str = "") -> Task:
    (folder / "mine.py").write_text(OWN.format(body=body) + top)
    return load_task(str(folder / "mine.py"))


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "table.csv").write_text("0.1,0.2,1\n0.3,0.4,0\n0.5,0.6,1\n")
    return str(tmp_path / "table.csv")


def test_a_task_may_have_local_data_only(tmp_path: Path, table: str) -> None:
    task = own(tmp_path)
    assert not task.has_data
    assert task.local_data(table).y.tolist() == [1, 0, 1]
    assert task.held_out(table).x.shape == (3, 2)
    with pytest.raises(UsageProblem, match=r"the task mine has no data\(\)") as caught:
        task.held_out()
    assert caught.value.error_id == "FLV-2233"
    assert "--data PATH" in caught.value.hint


def test_what_local_data_returns_may_be_examples(tmp_path: Path, table: str) -> None:
    body = "return learning.Examples(np.zeros((2, 2)), np.arange(2))"
    assert isinstance(own(tmp_path, body).local_data("anything://at all"), Examples)


def test_beside_data_both_can_be_had(tmp_path: Path, table: str) -> None:
    task = own(tmp_path, top='DATA = "digits"\n')
    assert task.has_data
    assert len(task.local_data(table)) == 3
    assert task.held_out() is digits().test


def test_a_file_of_arrays_needs_no_function(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((3, 2)), y=np.arange(3))
    task = own(tmp_path, top="del local_data\nDATA = 'digits'\n")
    assert len(task.local_data(str(tmp_path / "mine.npz"))) == 3


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ("return open(path).read()", "nowhere.csv", "FileNotFoundError"),
        ("return None", "x", "must return a pair (x, y) of arrays, got NoneType"),
        ("return 1, 2, 3", "x", "must return a pair"),
    ],
)
def test_what_local_data_cannot_read_is_said(tmp_path: Path, body: str, path: str, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        own(tmp_path, body).local_data(path)
    assert caught.value.error_id == "FLV-2234"
    assert says in caught.value.message
    assert "mine.py" in caught.value.where


@pytest.mark.parametrize("name", ["table.csv", "missing.npz", "text.npz", "other.npz", "pickled.npz"])
def test_without_a_function_only_arrays_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([object()]), y=np.zeros(1))
    task = own(tmp_path, top="del local_data\nDATA = 'digits'\n")
    with pytest.raises(UsageProblem) as caught:
        task.local_data(str(tmp_path / name))
    assert caught.value.error_id == "FLV-2234"
    assert "numpy.savez" in caught.value.hint


def test_a_check_without_data_says_so_and_with_a_path_is_a_whole_one(tmp_path: Path, table: str) -> None:
    task = own(tmp_path)
    report = check_task(task)
    assert (report.trained, report.unfinished) == ({}, "")
    assert "nothing to try" in report.notes[0]
    report = check_task(task, path=table)
    assert report.trained["loss"] > 0
    assert set(report.evaluated) == {"loss", "accuracy"}


def test_a_check_of_parts_trains_one_of_them(tmp_path: Path) -> None:
    top = """
def data():
    x = np.ones((6, 2))
    y = np.zeros(6, int)
    return learning.Dataset(parts={"a": (x, y), "b": (0 * x, y + 1)}, test=(x, y))

def train(model, data, config):
    assert (data.x == 1).all() and len(data) == 6
    return learning.fit(model, data, config)
"""
    assert check_task(own(tmp_path, top=top)).unfinished == ""
