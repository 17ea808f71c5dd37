"""The first file of a new task, and that the light parts of learning stay light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.session.simulation import simulate
from learning.new_task import write_task
from learning.task import load_task


def test_a_new_task_works_as_written(tmp_path: Path) -> None:
    path = write_task("mine", tmp_path)
    assert path == tmp_path / "mine.py"
    assert "fluvial run mine.py" in path.read_text(encoding="utf-8")
    assert "{{" not in path.read_text(encoding="utf-8")
    task = load_task(str(path))
    result = simulate(task, devices=10, versions=10)
    assert task.name == "mine"
    assert result.curve()[-1] > 0.8


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageProblem) as caught:
        write_task("mine", tmp_path)
    assert caught.value.error_id == "FLV-2210"
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    ("name", "error_id"),
    [
        ("Mine", "FLV-2201"),
        ("../up", "FLV-2201"),
        ("", "FLV-2201"),
        ("a" * 49, "FLV-2201"),
        ("digits", "FLV-2211"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, error_id: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        write_task(name, tmp_path)
    assert caught.value.error_id == error_id
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        write_task("mine", tmp_path / "nowhere")
    assert caught.value.error_id == "FLV-2215"
    assert caught.value.hint.startswith("mkdir -p")


def test_the_light_parts_do_not_load_torch() -> None:
    code = "import sys, learning, learning.new_task, learning.config, learning.datasets, learning.partition\n"
    code += "sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=300)
    assert done.returncode == 0


def test_every_error_id_of_this_part_has_its_page() -> None:
    root = Path(__file__).parents[3]
    source = "".join(path.read_text(encoding="utf-8") for path in (root / "learning").rglob("*.py"))
    for error_id in sorted(set(re.findall(r"FLV-22\d\d", source))):
        page = root / "docs" / "errors" / f"{error_id}.md"
        assert page.read_text(encoding="utf-8").startswith(f"# {error_id}: ")
