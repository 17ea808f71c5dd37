"""A task's modules in other processes and as parts of packages: importable under one name, anywhere."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from learning import programs
from learning.task import Task, load_task
from learning.userfile import call_users
from tests.unit.learning.test_name_clashes import TASK, his, loaded, write

ROOT = Path(__file__).parents[3]
SHAPES = """
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

class Colour(Enum):
    RED = 1

class Place(NamedTuple):
    x: int

@dataclass(frozen=True)
class Shape:
    corners: int = 3
    colour: Colour = Colour.RED
    places: list = field(default_factory=lambda: [Place(1)])

def corners(shape):
    return shape.corners
"""
WORKERS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from torch.utils.data import DataLoader, Dataset as TorchDataset

import shapes
from .shapes import Shape

class Mine(TorchDataset):
    def __init__(self, data):
        self.data = data
    def __len__(self):
        return len(self.data)
    def __getitem__(self, i):
        return torch.from_numpy(self.data.x[i]), int(self.data.y[i])

def gather(batch):
    return torch.stack([x for x, _ in batch]), torch.tensor([y for _, y in batch])

def train(model, data, config):
    spawn = multiprocessing.get_context("spawn")
    loader = DataLoader(Mine(data), batch_size=8, num_workers=2, multiprocessing_context=spawn, collate_fn=gather)
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(shapes.corners, Shape(5)).result(60) == 5
    return {"loss": loss.item()}
"""


def program(folder: Path, top: str, files: dict[str, str], name: str = "mine.py") -> Task:
    write(folder, {**files, name: TASK.replace("import learning\n", "import learning\n" + top, 1)})
    return load_task(str(folder / name))


@pytest.mark.long
def test_spawned_workers_of_a_data_loader_and_of_a_pool_import_the_tasks_module(tmp_path: Path) -> None:
    """As ``fluvial run`` has them: the command is a process whose main module is not his."""
    before, _, after = TASK.partition("def train(model, data, config):\n    return")
    text = before + WORKERS + after.partition("\n")[2]
    write(tmp_path, {"my-task.py": "NAME = 'mine'\nprint('imported')\n" + text, "shapes.py": SHAPES})
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fluvial.cli", "task", "check", "my-task.py", "--seconds", "300"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "works on one batch" in done.stderr
    assert done.stdout == "run it: `fluvial run my-task.py --simulate`\n", "workers print to stderr, too"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-task.py", "shapes.py"], "nothing written"


def test_what_he_pickles_is_read_in_a_process_that_this_one_starts(tmp_path: Path) -> None:
    task = loaded(tmp_path, "import schemas\n", {"schemas.py": SHAPES})
    data = pickle.dumps(his(task, "schemas").Shape(7))  # type: ignore[attr-defined]
    code = f"import pickle; print(pickle.loads({data!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # noqa: TID251 (what a child gets)
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Shape(corners=7, colour=<Colour.RED: 1>, places=[Place(x=1)])" in done.stdout, done.stderr


def test_the_name_of_his_module_follows_from_its_place_alone(tmp_path: Path) -> None:
    first = loaded(tmp_path)._module.__name__
    assert first.startswith("learning.programs.mine_")
    assert loaded(tmp_path, "EDITED = 1\n")._module.__name__ == first
    assert loaded(tmp_path / "other")._module.__name__ != first


def test_his_source_can_be_looked_at_and_an_edit_within_the_same_second_counts(tmp_path: Path) -> None:
    task = loaded(tmp_path, "from helper import f\n", {"helper.py": "def f():\n    return 1\n"})
    assert inspect.getsource(his(task, "f")) == "def f():\n    return 1\n"  # type: ignore[arg-type]
    assert inspect.getsource(his(task, "model")).startswith("def model()")  # type: ignore[arg-type]
    task = loaded(tmp_path, "from helper import f\n", {"helper.py": "def f():\n    return 2\n"})
    assert his(task, "f")() == 2  # type: ignore[operator]


@pytest.mark.parametrize(
    "line",
    ["from .nets import small", "from . import nets\nsmall = nets.small", "from nets import small",
     "from .deep.down import small", "from deep.down import small", "import nets as n\nsmall = n.small"],
)  # fmt: skip
def test_files_beside_the_task_are_found_relatively_and_by_name(tmp_path: Path, line: str) -> None:
    files = {
        "nets.py": "def small():\n    return 'his'\n",
        "deep/__init__.py": "",
        "deep/down.py": "from ..nets import small\nfrom nets import small as same\nassert small is same",
    }
    assert his(program(tmp_path, line + "\n", files), "small")() == "his"  # type: ignore[operator]


def test_a_task_within_a_package_of_his_imports_what_lies_above(tmp_path: Path) -> None:
    files = {
        "lab/__init__.py": "NAME_OF_LAB = 'lab'",
        "lab/nets.py": "from lab import NAME_OF_LAB\ndef small():\n    return NAME_OF_LAB\n",
        "lab/tasks/__init__.py": "",
        "lab/tasks/beside.py": "ONE = 1",
    }
    top = "from ..nets import small\nfrom lab.nets import small as same\nfrom . import beside\nimport beside as flat\n"
    write(tmp_path, files)
    task = program(tmp_path / "lab" / "tasks", top, {})
    assert his(task, "small")() == "lab"  # type: ignore[operator]
    assert his(task, "same") is his(task, "small")
    assert his(task, "beside").ONE == his(task, "flat").ONE == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["2023-my task.py", "class.py", "my.task.v2.py"])
def test_a_file_with_a_name_that_python_cannot_import_is_a_task(tmp_path: Path, name: str) -> None:
    text = "NAME = 'mine'\nfrom .nets import WIDTH\n"
    assert his(program(tmp_path, text, {"nets.py": "WIDTH = 3"}, name), "WIDTH") == 3


def test_a_mistake_in_a_file_beside_the_task_is_shown_at_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        program(tmp_path, "import nets\n", {"nets.py": "ONE = 1\nTWO = one\n"})
    assert caught.value.where == f"{tmp_path}/nets.py:2: TWO = one"
    with pytest.raises(UsageProblem) as caught:
        program(tmp_path, "import nets\n", {"nets.py": "def broken(:\n"})
    assert caught.value.where == f"{tmp_path}/nets.py:1: def broken(:"


@pytest.mark.parametrize(
    ("folder", "says"), [("cache/programs/ab12", "does not travel"), ("work", "mend data()")]
)
def test_a_data_file_that_did_not_travel_is_no_mistake_of_the_program(
    tmp_path: Path, folder: str, says: str
) -> None:
    top = "def data():\n    return open('beside-it.csv')\n"
    write(tmp_path / folder, {"mine.py": TASK + top})
    with pytest.raises(UsageProblem) as caught:
        load_task(str(tmp_path / folder / "mine.py")).data()
    assert says in caught.value.hint


def test_lines_of_installed_packages_and_of_ours_are_not_his_even_below_his_folder(tmp_path: Path) -> None:
    """His folder may be his home, with Python and a virtual environment in it."""
    task = program(
        tmp_path,
        "from importlib import import_module\ndef fail():\n    import json\n    return json.loads('{')\n",
        {"site-packages/note.txt": ""},
    )
    with pytest.raises(UsageProblem) as caught:
        call_users(Path("/anywhere.py"), "fail()", "FLV-2205", his(task, "fail"))  # type: ignore[arg-type]
    assert caught.value.where == f"{tmp_path}/mine.py:8 in fail(): return json.loads('{{')"


def test_threads_that_load_one_file_at_once_each_get_a_whole_program(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import time\ntime.sleep(0.05)\nVALUE = 7\n")
    path = tmp_path / "mine.py"
    path.write_text("import time\ntime.sleep(0.05)\nfrom beside import VALUE\n")
    found: list[object] = []

    def load() -> None:
        try:
            found.append(programs.load_program(path, path.read_bytes()).VALUE)
        except Exception as error:  # noqa: BLE001 (the test says which)
            found.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7, 7, 7, 7]
