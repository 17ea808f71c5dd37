"""Task files: what stands in one becomes names of topics and patterns of permissions, so it has to be a task's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from aggregation.errors import UsageProblem
from backends.tasks import TaskFile, read_task_file, task_folder, write_task_file

TASK = TaskFile(task="mine", genesis_sha256="ab" * 32, reference="digits", regions=("eu", "us"))


def put(home: Path, folder: str, file: TaskFile) -> None:
    write_task_file(home, msgspec.structs.replace(file, task=folder))
    (task_folder(home, folder) / "task.json").write_bytes(msgspec.json.encode(file))


def test_a_task_of_its_own_folder_is_read(home: Path) -> None:
    put(home, "mine", TASK)
    assert read_task_file(home, "mine") == TASK


@pytest.mark.parametrize("name", ["*", "m*", "min?", "min", "other", "", "mine/..", "${aws:username}"])
def test_a_file_of_another_task_is_none_of_this(home: Path, name: str) -> None:
    put(home, "mine", msgspec.structs.replace(TASK, task=name))
    with pytest.raises(UsageProblem, match="is of a task") as caught:
        read_task_file(home, "mine")
    assert caught.value.error_id == "FLV-2402"


@pytest.mark.parametrize("name", ["*", "m*", "Mine", "-mine", "m" * 49])
def test_a_folder_that_no_task_can_have_holds_none(home: Path, name: str) -> None:
    put(home, name, msgspec.structs.replace(TASK, task=name))
    with pytest.raises(UsageProblem) as caught:
        read_task_file(home, name)
    assert caught.value.error_id == "FLV-2402"


@pytest.mark.parametrize("region", ["*", "e*", "", "eu,us", "../eu"])
def test_a_region_that_no_task_can_have_is_refused(home: Path, region: str) -> None:
    put(home, "mine", msgspec.structs.replace(TASK, regions=("eu", region)))
    with pytest.raises(UsageProblem, match="names a region") as caught:
        read_task_file(home, "mine")
    assert caught.value.error_id == "FLV-2402"
