"""Creating a task, on the real Kafka and object store: once, by one, and not on an earlier one's logs."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aggregation.errors import UsageProblem
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder, read_task_file
from schemas.topics import updates_topic
from tests.integration.devices.stage import Stage, create

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings


def test_creating_a_task_twice_changes_nothing(stack: Settings, name: str) -> None:
    first = create(stack, name)
    store = TaskStore(open_object_store(stack.store), name)
    before = store.manifest_bytes(0)
    assert create(stack, name) == first == read_task_file(stack.home, name)
    assert store.manifest_bytes(0) == before
    assert store.has_checkpoint(0)
    policy = store.genesis(first.genesis_sha256).first_policy
    assert store.policy(policy.sha256) == policy


def test_a_task_from_before_policies_had_formats_is_found_unchanged_by_the_same_command(
    stack: Settings, name: str
) -> None:
    first = create(stack, name, policy_text='format = "fluvial/policy/v1"')
    assert (
        "format"
        not in json.loads(TaskStore(open_object_store(stack.store), name).manifest_bytes(0))["policy"]
    )
    assert create(stack, name) == first
    with pytest.raises(UsageProblem, match="differs in policy") as caught:
        create(stack, name, policy_text='format = "fluvial/policy/v2"')
    assert caught.value.error_id == "FLV-2403"


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"regions": {"eu": 2}}, "regions"),
        ({"policy_text": "[buffer]\nupdates = 7"}, "policy"),
        ({"seed": 1}, "model_sha256"),
    ],
    ids=["other regions", "another policy", "another seed"],
)
def test_another_task_of_the_same_name_is_refused(
    stage: Stage, options: dict[str, Any], difference: str
) -> None:
    with pytest.raises(UsageProblem, match=difference) as caught:
        create(stage.settings, stage.task, **options)
    assert caught.value.error_id == "FLV-2403"
    assert stage.store.genesis(stage.file.genesis_sha256) == stage.genesis
    assert stage.store.model_bytes(0, stage.genesis.model_sha256)


def test_a_machine_without_the_tasks_keys_cannot_create_it_again(stage: Stage, tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(stage.settings, home=tmp_path)
    with pytest.raises(UsageProblem, match="not on this machine") as caught:
        create(elsewhere, stage.task)
    assert caught.value.error_id == "FLV-2403"
    assert not keys_folder(tmp_path, stage.task).exists()


def test_of_two_who_create_a_task_at_once_with_keys_of_their_own_one_wins(
    stack: Settings, name: str, tmp_path: Path
) -> None:
    outcomes: list[object] = []

    def run(number: int) -> None:
        try:
            outcomes.append(create(msgspec.structs.replace(stack, home=tmp_path / str(number)), name))
        except UsageProblem as problem:
            outcomes.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, TaskFile)]
    assert {o.error_id for o in outcomes if isinstance(o, UsageProblem)} == {"FLV-2403"}
    genesis = TaskStore(open_object_store(stack.store), name).genesis(winner.genesis_sha256)
    assert genesis.task == name


def test_a_model_whose_updates_would_not_fit_is_refused(stack: Settings, name: str) -> None:
    with pytest.raises(UsageProblem, match=r"updates\.bytes_max") as caught:
        create(stack, name, policy_text="[updates]\nbytes_max = 10000")
    assert caught.value.error_id == "FLV-2404"
    assert TaskStore(open_object_store(stack.store), name).head() is None


def test_a_new_task_does_not_start_on_an_earlier_ones_logs(stage: Stage, tmp_path: Path) -> None:
    stage.writer.append_now(updates_topic(stage.task, "us"), b"old", partition=0)
    store = msgspec.structs.replace(stage.settings.store, kind="file", path=tmp_path / "objects")
    emptied = msgspec.structs.replace(stage.settings, store=store)
    with pytest.raises(UsageProblem, match="1 records") as caught:
        create(emptied, stage.task)
    assert caught.value.error_id == "FLV-2406"
