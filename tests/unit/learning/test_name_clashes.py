"""A user's files may have the names of our packages, or of others: his names win for him, ours for us."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from learning.datasets import Dataset
from learning.task import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[3]
OURS = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps")

TASK = """
import numpy as np
from torch import nn
import learning

def data():
    x = np.arange(80.0).reshape(40, 2) / 80
    return learning.Dataset(train=(x, x[:, 0] > 0.5), test=(x, x[:, 0] > 0.5))

def model():
    return nn.Linear(2, 2)

def train(model, data, config):
    return learning.fit(model, data, config, nn.functional.cross_entropy)

def evaluate(model, data):
    return learning.score(model, data)
"""


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def loaded(folder: Path, top: str = "", files: Mapping[str, str] | None = None) -> Task:
    """The task `mine.py`, which begins with ``top``, beside ``files``."""
    write(folder, {**(files or {}), "mine.py": top + TASK})
    return load_task(str(folder / "mine.py"))


def his(task: Task, name: str) -> object:
    """What a name of the task file is."""
    return getattr(task._module, name)


def python(
    folder: Path, *arguments: str, path: Path | None = None, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder``, with our packages installed and ``path`` before them."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **os.environ,  # noqa: TID251
            "PYTHONPATH": os.pathsep.join([*([str(path)] if path else []), str(ROOT)]),
        },
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def output_of(folder: Path, *arguments: str, path: Path | None = None) -> str:
    done = python(folder, *arguments, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- a task file and what lies beside it


@pytest.mark.parametrize("name", [*OURS[:3], *OURS[4:], "ops", "adapters", "fluvial", "fluvial_x", "queue"])
def test_a_file_beside_the_task_is_his_under_any_name(tmp_path: Path, name: str) -> None:
    before = sys.modules.get(name)
    task = loaded(
        tmp_path, f"from {name} import WHOSE\nimport {name} as whole\n", {f"{name}.py": "WHOSE = 'his'"}
    )
    assert his(task, "WHOSE") == "his"
    assert his(task, "whole").WHOSE == "his"  # type: ignore[attr-defined]
    assert sys.modules.get(name) is before, "everybody else has what he had"


def test_his_learning_wins_over_ours_and_the_facade_still_has_what_ours_offers(tmp_path: Path) -> None:
    text = TASK.replace("import learning\n", "import learning as his\nimport fluvial\n")
    text = text.replace("learning.fit(", "his.fit(").replace("learning.Dataset(", "fluvial.Dataset(")
    helper = "fit = lambda *_: {'loss': 1.0}"
    write(tmp_path, {"mine.py": text, "learning.py": helper})
    task = load_task(str(tmp_path / "mine.py"))
    assert isinstance(task.data(), Dataset)
    assert task.train(task.model(), task.data().train, task.config) == {"loss": 1.0}


def test_his_files_import_each_other_and_not_ours(tmp_path: Path) -> None:
    files = {
        "schemas.py": "from adapters import DEPTH\nimport backends.deep.deeper as there\nDEEPER = there.DEPTH",
        "adapters.py": "import aggregation\nDEPTH = aggregation.DEPTH + 1",
        "aggregation.py": "DEPTH = 1",
        "backends/__init__.py": "",
        "backends/deep/__init__.py": "from . import deeper",
        "backends/deep/deeper.py": "from schemas import DEPTH as ONE\nDEPTH = ONE + 1",
    }
    task = loaded(tmp_path, "import schemas, backends\nfrom backends.deep import deeper\n", files)
    assert his(task, "schemas").DEPTH == 2  # type: ignore[attr-defined]
    assert his(task, "schemas").DEEPER == 3  # type: ignore[attr-defined]
    assert his(task, "deeper") is his(task, "backends").deep.deeper  # type: ignore[attr-defined]


def test_an_import_within_his_function_means_his_file_too(tmp_path: Path) -> None:
    body = "def evaluate(model, data):\n    import schemas\n    return schemas.score()\n"
    write(tmp_path, {"mine.py": TASK + body, "schemas.py": "def score():\n    return {'loss': 7.0}"})
    task = load_task(str(tmp_path / "mine.py"))
    assert task.evaluate(task.model(), task.data().test) == {"loss": 7.0}


def test_tasks_of_two_folders_have_each_their_own_file_of_one_name(tmp_path: Path) -> None:
    one, other = (
        loaded(tmp_path / name, "from schemas import WHOSE\n", {"schemas.py": f"WHOSE = {name!r}"})
        for name in ("one", "other")
    )
    assert (his(one, "WHOSE"), his(other, "WHOSE")) == ("one", "other")


def test_an_edited_file_beside_the_task_is_read_anew(tmp_path: Path) -> None:
    loaded(tmp_path, "from helper import WIDTH\n", {"helper.py": "WIDTH = 1"})
    assert his(loaded(tmp_path, "from helper import WIDTH\n", {"helper.py": "WIDTH = 200"}), "WIDTH") == 200


def test_loading_a_task_leaves_the_search_path_and_our_modules_as_they_were(tmp_path: Path) -> None:
    before, modules = list(sys.path), {name: sys.modules.get(name) for name in OURS}
    loaded(tmp_path, "import schemas\n", {"schemas.py": ""})
    assert sys.path == before
    assert {name: sys.modules.get(name) for name in OURS} == modules


def test_a_folder_without_init_does_not_hide_a_package(tmp_path: Path) -> None:
    """As everywhere in Python: a folder `torch/` beside the task is a module only where there is no other."""
    task = loaded(
        tmp_path,
        "import schemas, torch\nfrom notes.today import TEXT\n",
        {"schemas/notes.txt": "", "torch/notes.txt": "", "notes/today.py": "TEXT = 'his'"},
    )
    assert Path(str(his(task, "schemas").__file__)).is_relative_to(ROOT)  # type: ignore[attr-defined]
    assert his(task, "TEXT") == "his"


def test_a_module_that_everybody_imports_from_his_folder_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, {"shared_by_all.py": "class Thing: ..."})
    import shared_by_all  # type: ignore[import-not-found]

    assert his(loaded(tmp_path, "import shared_by_all\n"), "shared_by_all") is shared_by_all


def test_objects_of_his_classes_can_be_pickled(tmp_path: Path) -> None:
    classes = "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int = 1\n"
    task = loaded(tmp_path, "import schemas\n" + classes, {"schemas.py": classes})
    for point in (his(task, "Point")(), his(task, "schemas").Point()):  # type: ignore[attr-defined, operator]
        assert pickle.loads(pickle.dumps(point)) == point


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import schemas.missing\n", "No module named 'schemas.missing'"),
        ("from schemas import missing\n", "cannot import name 'missing'"),
        ("from . import missing\n", "cannot import name 'missing'"),
    ],
)
def test_what_his_file_lacks_is_said_in_his_words_at_his_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        loaded(tmp_path, text, {"schemas/__init__.py": ""})
    assert message in caught.value.message
    assert caught.value.where.endswith(f"mine.py:1: {text.strip()}")


# -- a program of his that imports ours


def clashing(folder: Path) -> Path:
    """A module of his for each of our packages' names, and for those that they had before."""
    write(folder, {f"{name}.py": f"WHOSE = 'his {name}'" for name in [*OURS, "ops", "adapters"]})
    return folder


SCRIPT = """
{first}
from fluvial import Contribution, Dataset, Device, load_model, load_task, simulate
from fluvial._siblings import own_module
{then}
print(schemas.WHOSE, learning.WHOSE, aggregation.WHOSE)
print(Device.publish.__qualname__, load_model.__name__, bool(own_module("schemas.avro").registry()))
from fluvial.cli import main
raise SystemExit(main(["--help"]))
"""
SMALL = ["--versions", "1", "--devices", "4", "--json"]
HIS_IMPORTS = "import schemas, learning, aggregation"


@pytest.mark.parametrize(
    ("first", "then"), [(HIS_IMPORTS, ""), ("", HIS_IMPORTS)], ids=["his own first", "ours first"]
)
def test_a_script_beside_files_of_our_names_gets_his_and_we_get_ours(
    tmp_path: Path, first: str, then: str
) -> None:
    write(clashing(tmp_path), {"script.py": SCRIPT.format(first=first, then=then)})
    said = output_of(tmp_path, "script.py")
    assert said.startswith("his schemas his learning his aggregation\nDevice.publish load_model True\n")
    assert "Usage: fluvial" in said


@pytest.mark.parametrize("name", ["aggregation", "learning", "producers"])
def test_one_clashing_name_is_enough_and_the_others_stay_what_they_are(tmp_path: Path, name: str) -> None:
    others = [other for other in OURS if other != name]
    program = f"""
import {name}
from fluvial import Device, load_model
import {", ".join(others)}
print({name}.WHOSE, all(module.__file__.startswith({str(ROOT)!r}) for module in ({", ".join(others)},)))
import sys
print(len([m for m in sys.modules.values() if (getattr(m, "__file__", "") or "").endswith("sdk/device.py")]))
"""
    write(tmp_path, {f"{name}.py": f"WHOSE = 'his {name}'", "script.py": program})
    assert output_of(tmp_path, "script.py") == f"his {name} True\n1\n"


def test_without_a_clash_importing_is_pythons_own(tmp_path: Path) -> None:
    program = (
        "import sys; before = list(sys.meta_path); import fluvial, schemas, fluvial.cli;"
        "print(sys.meta_path == before, type(fluvial.cli.__loader__).__name__, schemas.__name__)"
    )
    assert output_of(tmp_path, "-c", program) == "True SourceFileLoader schemas\n"


def test_our_code_names_our_packages_in_import_statements_only() -> None:
    """A text such as `resources.files("schemas")` means whatever is called so in the process: his, in a clash."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in (*OURS, "fluvial")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in {"files", "import_module", "find_spec", "__import__"}
        and [
            word
            for word in node.args
            if isinstance(word, ast.Constant) and str(word.value).split(".")[0] in OURS
        ]
    ]
    assert wrong == []


@pytest.mark.parametrize("start", [["-m", "fluvial.cli"], ["-m", "fluvial"], ["-P", "-m", "fluvial.cli"]])
def test_the_command_runs_in_a_folder_of_our_names(tmp_path: Path, start: list[str]) -> None:
    clashing(tmp_path)
    assert "Usage: fluvial" in output_of(tmp_path, *start, "--help")


def test_our_processes_do_not_look_into_the_folder_that_they_run_in(tmp_path: Path) -> None:
    write(
        clashing(tmp_path), {"fluvial.py": "raise SystemExit('his')", "click.py": "raise SystemExit('his')"}
    )
    assert "Usage: fluvial" in output_of(tmp_path, "-P", "-m", "fluvial.cli", "--help")


@pytest.mark.long
def test_packages_of_these_names_from_the_index_do_not_matter(tmp_path: Path) -> None:
    """`ops` and `adapters` are there, and so is whatever else somebody installed before us on the path."""
    site, folder = clashing(tmp_path / "site"), tmp_path / "his"
    write(
        folder,
        {"mine.py": TASK.replace("import learning", "import ops, adapters, learning"), "schemas.py": ""},
    )
    command = ["-P", "-m", "fluvial.cli", "run", "mine.py", "--simulate", *SMALL]
    assert '"simulated": true' in output_of(folder, *command, path=site)


@pytest.mark.long
def test_a_task_with_files_of_our_names_trains_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write(
        clashing(tmp_path), {"mine.py": "from schemas import WHOSE\nfrom ops import WHOSE as OTHER\n" + TASK}
    )
    (tmp_path / "learning.py").unlink()
    command = ["-m", "fluvial.cli", "run", "mine.py", "--simulate", *SMALL]
    assert '"simulated": true' in output_of(tmp_path, *command)
