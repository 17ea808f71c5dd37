"""What each role may do on a secured local stack, where one task of its home is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.environment import load_settings
from backends.settings import ADMIN, StackFile
from backends.tasks import TaskFile, task_folder, write_task_file
from fluvial.local.files import store_user, write_stack_file
from fluvial.local.stack_access import permit_known_tasks, store_policies
from fluvial.terminal.output import Output
from schemas.access import ROLES


def test_a_task_whose_file_is_damaged_keeps_no_other_from_its_stack(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "spoilt"):
        write_task_file(home, TaskFile(task=name, genesis_sha256="ab", reference="digits", regions=("eu",)))
    (task_folder(home, "spoilt") / "task.json").write_text("{")
    write_stack_file(home, StackFile(store_kind="file", running=True, kafka_port=20001))
    assert permit_known_tasks(load_settings(home, {}, role=ADMIN), Output()) == 0
    said = capsys.readouterr().err
    assert "warning[FLV-2402]: task spoilt gets no permissions" in said
    assert "good" not in said


def test_who_asks_for_permissions_makes_no_keys(home: Path) -> None:
    """A key that the store was never told of would keep its role out."""
    home.mkdir()
    write_stack_file(home, StackFile(store_kind="minio", running=True, kafka_port=20001, store_port=20002))
    environ = {"FLUVIAL_STORE_ACCESS_KEY": "admin", "FLUVIAL_STORE_SECRET_KEY": "secret-secret"}
    policies = store_policies(load_settings(home, environ, role=ADMIN), "task")
    assert {one.user for one in policies} == {store_user(home, role) for role in ROLES if role != "guardian"}
    assert not (home / "store-keys").exists()
