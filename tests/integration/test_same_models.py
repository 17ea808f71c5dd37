"""A run on Kafka and MinIO, and `fluvial simulate --arrivals`, which trains and merges it anew: the same models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backends.environment import load_settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.simulating.arrivals import read_arrivals
from tests.arrivals_run import MODES, run_and_record, told

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.local.stack import LocalStack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_comes_to_the_same_models(stack: LocalStack, tmp_path: Path, mode: str) -> None:
    said, file = run_and_record(stack.home, tmp_path, mode)
    store = TaskStore(open_object_store(load_settings(stack.home).store), f"plane-{mode}")
    head = store.head()
    assert head is not None
    assert said["identical"] is True
    assert said["policy_sha256"] == store.genesis().first_policy.sha256
    assert [one["model_sha256"] for one in said["versions"]] == [
        store.manifest(version).model_sha256 for version in range(1, head.version + 1)
    ]
    assert read_arrivals(file).updates == said["updates"] > 2 * head.version
    # The file says the same where there is no stack.
    assert told(tmp_path / "nowhere", tmp_path, "simulate", "plane.py", "--arrivals", str(file)) == said
