"""Which files travel with a task: the task file, and what it imports of what lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from learning.program_files import program_files
from learning.task import load_task
from tests.unit.learning.test_name_clashes import TASK, write


def collected(folder: Path, top: str, files: dict[str, str], name: str = "mine.py") -> list[str]:
    write(folder, {**files, name: top + TASK})
    found = program_files(folder / name)
    assert found.files[found.entry] == (folder / name).read_bytes()
    return sorted(set(found.files) - {found.entry})


BESIDE = {
    "nets.py": "import layers",
    "layers.py": "import nets, numpy, json",
    "unused.py": "1/0",
    "schemas.py": "",
    "deep/__init__.py": "",
    "deep/down.py": "from . import lower\nfrom ..nets import x",
    "deep/lower.py": "",
    "deep/other.py": "",
    "spread/part.py": "",
    "torch/not_his.py": "",
    "data.csv": "1,2",
}


@pytest.mark.parametrize(
    ("top", "names"),
    [
        ("", []),
        ("import nets\n", ["layers.py", "nets.py"]),
        ("from .nets import x\n", ["layers.py", "nets.py"]),
        ("from . import nets, schemas\n", ["layers.py", "nets.py", "schemas.py"]),
        ("def f():\n    import schemas\n", ["schemas.py"]),
        ("try:\n    import schemas\nexcept ImportError: ...\n", ["schemas.py"]),
        ("import deep.lower as l\n", ["deep/__init__.py", "deep/lower.py"]),
        ("from deep import lower, missing\n", ["deep/__init__.py", "deep/lower.py"]),
        ("import deep\n", ["deep/__init__.py"]),
        ("from deep.down import x\n",
         ["deep/__init__.py", "deep/down.py", "deep/lower.py", "layers.py", "nets.py"]),
        ("from spread.part import x\n", ["spread/part.py"]),
        ("from spread import part\n", ["spread/part.py"]),
        ("import torch, numpy, os, sys, learning, missing\n", []),
        ("from nets import *\n", ["layers.py", "nets.py"]),
    ],
)  # fmt: skip
def test_what_it_imports_travels_and_nothing_else(tmp_path: Path, top: str, names: list[str]) -> None:
    assert collected(tmp_path, top, BESIDE) == names


def test_what_importing_found_without_a_statement_travels_too(tmp_path: Path) -> None:
    top = "import importlib\nhis = importlib.import_module('.schemas', __package__)\n"
    assert collected(tmp_path, top, BESIDE) == []
    load_task(str(tmp_path / "mine.py"))
    assert sorted(program_files(tmp_path / "mine.py").files) == ["mine.py", "schemas.py"]


def test_a_task_within_a_package_takes_along_what_the_package_needs(tmp_path: Path) -> None:
    files = {
        "lab/__init__.py": "from lab import base",
        "lab/base.py": "",
        "lab/nets.py": "",
        "lab/unused.py": "",
        "lab/tasks/__init__.py": "",
        "lab/tasks/beside.py": "",
        "lab/tasks/mine.py": "from ..nets import x\nfrom . import beside\nimport beside as flat\n" + TASK,
    }
    write(tmp_path, files)
    found = program_files(tmp_path / "lab" / "tasks" / "mine.py")
    assert found.entry == "lab/tasks/mine.py"
    assert sorted(found.files) == sorted(set(files) - {"lab/unused.py"})


def test_a_file_that_cannot_be_parsed_travels_as_it_is(tmp_path: Path) -> None:
    top = "try:\n    import broken\nexcept SyntaxError: ...\n"
    assert collected(tmp_path, top, {"broken.py": "def ("}) == ["broken.py"]


def test_what_is_no_python_source_is_said(tmp_path: Path) -> None:
    import sysconfig

    compiled = f"fast{sysconfig.get_config_var('EXT_SUFFIX')}"
    write(tmp_path, {compiled: "", "mine.py": "import fast\n" + TASK})
    found = program_files(tmp_path / "mine.py")
    assert (sorted(found.files), found.left_out) == (["mine.py"], [compiled])


def test_the_same_files_elsewhere_are_the_same_program(tmp_path: Path) -> None:
    for folder in ("one", "two words"):
        collected(tmp_path / folder, "import nets, deep.down\n", BESIDE, "my task.py")
    one, two = (program_files(tmp_path / folder / "my task.py") for folder in ("one", "two words"))
    assert one == two
