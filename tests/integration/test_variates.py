"""SCAFFOLD's devices, private layers and FedAsync's mixing, trained, audited and checked for real.

A task with private layers whose layout has control variates, under a policy that mixes whole models; devices keep their
layers and their own variates in a folder each.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from backends.environment import load_settings
from backends.kafka.configuration import checker_connection
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import private_folder, read_task_file
from fluvial.local.stack import LocalStack
from fluvial.proof.checker import CheckRequest, StoreAddress, check
from schemas.checkpoints import decode_model
from schemas.manifests import CONTROL_GENESIS
from schemas.tensor_files import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 480.0
VERSIONS = 5
TASK = "personal"
PRIVATE = {"head.weight", "head.bias"}
POLICY = """
[buffer]
updates = 2
seconds_max = 4.0

[server]
mixing = true
learning_rate = 0.7

[control]
norm_clip = 10.0
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    try:
        yield folder
    finally:
        with contextlib.suppress(FileNotFoundError):
            LocalStack(folder).down()


def fluvial(home: Path, *arguments: str) -> Any:
    """A command's document."""
    done = subprocess.run(
        [sys.executable, "-m", "fluvial.cli", "--home", str(home), *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_control_variates_private_layers_and_mixing_train_and_audit_to_the_same_bits(
    home: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    told = fluvial(
        home,
        "run",
        str(ROOT / "docs" / "examples" / f"{TASK}.py"),
        *("--devices", "6", "--versions", str(VERSIONS), "--store", "file"),
        *("--policy", str(policy), "--set", "algorithm=scaffold"),
    )
    assert told["versions"] >= VERSIONS
    assert told["audit"]["identical"] is True

    settings, task = load_settings(home), read_task_file(home, TASK)
    store = TaskStore(open_object_store(settings.store), TASK)
    genesis = store.genesis(task.genesis_sha256)
    layout = genesis.tensor_layout
    assert (genesis.format, genesis.first_policy.control.devices) == (CONTROL_GENESIS, 6)
    manifest = store.manifest(VERSIONS)
    model = decode_model(store.model_bytes(VERSIONS, manifest.model_sha256), layout)
    assert np.count_nonzero(model[layout.model_parameters :]) > layout.control.parameters // 4
    assert any(store.manifest(version).staleness_max for version in range(1, VERSIONS + 1)), (
        "nothing was mixed"
    )

    # A device's own variates and layers stand in its folder, and nowhere else.
    assert PRIVATE.isdisjoint(layout.names)
    files = sorted(private_folder(home, TASK).glob("*/layers.safetensors"))
    assert files
    assert all(set(read_tensors(file.read_bytes())) == PRIVATE | set(layout.control.names) for file in files)

    again = fluvial(home, "audit", "--task", TASK)
    assert again["digest"] == told["audit"]["digest"]

    # The checker, which shares no code with the workers, comes to the same.
    report = check(
        CheckRequest(
            kafka=checker_connection(settings),
            store=StoreAddress(path=str(settings.store.path)),
            task=TASK,
            genesis_sha256=task.genesis_sha256,
            drained=False,
        )
    )
    assert [violation.message for violation in report.violations] == []
    assert report.identical and report.versions == told["versions"]
