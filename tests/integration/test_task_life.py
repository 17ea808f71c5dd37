"""A task from `task create` to `task rm` on the real stack: what goes is its own, and all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from backends.kafka.admin import admin_client
from backends.store.factory import open_object_store
from backends.tasks import task_folder, task_names
from fluvial import cli

if TYPE_CHECKING:
    from backends.settings import Settings

TASK, LIKE_IT = "leaving", "leaving-2"


def topics_like(stack: Settings, task: str) -> set[str]:
    return {
        name for name in admin_client(stack).list_topics(timeout=60).topics if name.startswith(f"fl.{task}.")
    }


def test_removing_a_task_takes_all_of_it_and_nothing_of_one_that_is_called_like_it(
    stack: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(stack.home)]
    for name in (TASK, LIKE_IT):
        create = ["task", "create", "digits", "--name", name, "--regions", "eu:1", "--set", "epochs=2"]
        assert cli.main([*home, *create]) == 0
    objects = open_object_store(stack.store)
    before = (topics_like(stack, LIKE_IT), sorted(objects.list(f"{LIKE_IT}/")))
    assert before[0] and before[1] and topics_like(stack, TASK)
    capsys.readouterr()

    assert cli.main([*home, "task", "show", TASK, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["settings"], shown["partitions"]) == (0, {"epochs": 2}, {"eu": 1})
    assert shown["running"] == [] and shown["parent"] is None

    assert cli.main([*home, "task", "stop", TASK]) == 0
    assert cli.main([*home, "task", "rm", TASK]) == 4  # nobody to ask
    assert topics_like(stack, TASK)
    capsys.readouterr()
    assert cli.main([*home, "task", "rm", TASK, "--yes", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)
    assert removed["topics"] == 5 and removed["objects"] >= 4 and removed["keys_deleted"] == shown["keys"]
    assert topics_like(stack, TASK) == set() and list(objects.list(f"{TASK}/")) == []
    assert not task_folder(stack.home, TASK).exists()

    assert (topics_like(stack, LIKE_IT), sorted(objects.list(f"{LIKE_IT}/"))) == before
    assert LIKE_IT in task_names(stack.home) and TASK not in task_names(stack.home)
    assert cli.main([*home, "task", "rm", TASK, "--yes"]) == 4  # it is gone
    assert cli.main([*home, "task", "rm", LIKE_IT, "--yes", "--keep-keys"]) == 0
    assert [path.name for path in task_folder(stack.home, LIKE_IT).iterdir()] == ["keys"]
