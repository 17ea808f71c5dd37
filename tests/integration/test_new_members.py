"""A policy with much that v1 has not, trained, audited and checked for real.

Synchronous rounds of a random share of the devices, weighed by examples; the codec int4, the optimizer amsgrad with a
rate that warms up and falls, and a merge of buckets.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends.environment import load_settings
from backends.kafka.configuration import checker_connection
from backends.kafka.reading import LogReader
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import read_task_file
from fluvial.local.stack import LocalStack
from fluvial.proof.checker import CheckRequest, StoreAddress, check
from schemas.envelope import open_envelope
from schemas.topics import updates_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 480.0
VERSIONS = 4
POLICY = """
format = "fluvial/policy/v5"

[updates]
codecs = ["int4"]

[buffer]
mode = "rounds"
updates = 3
quorum = 2
seconds_max = 4.0

[selection]
kind = "share"
share = 0.8

[weights]
by = "examples"
examples_max = 200

[server]
optimizer = "amsgrad"
learning_rate = 0.05
delay_versions_max = 2

[schedule]
kind = "cosine"
versions = 10
warmup_versions = 2

[merge]
kind = "geometric_median"
buckets = 3
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


def test_rounds_lots_rates_and_a_merge_train_and_audit_to_the_same_bits(home: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    told = fluvial(
        home, "run", "digits", "--devices", "6", "--versions", str(VERSIONS), "--store", "file",
        "--policy", str(policy),
    )  # fmt: skip
    assert told["versions"] >= VERSIONS
    assert told["audit"]["identical"] is True

    # What the devices sent, and what the merger kept, is what the policy asked for.
    settings, task = load_settings(home), read_task_file(home, "digits")
    store = TaskStore(open_object_store(settings.store), "digits")
    assert store.genesis(task.genesis_sha256).first_policy.in_rounds
    with LogReader(settings, "test-new-members") as reader:
        topic, envelopes = updates_topic("digits", "local"), []
        for p in range(2):
            for record in reader.read(topic, p, *reader.bounds(topic, p)):
                envelope = open_envelope(record.value or b"")
                envelopes += [(p, record.offset, envelope)] if envelope.kind == "ClientUpdate" else []
    assert {(one.schema.version, one.record["codec"]) for _, _, one in envelopes} == {(2, "int4")}
    assert "not_selected" not in json.dumps(told)  # devices draw their lot before they train
    p, offset, _ = envelopes[0]
    shown = fluvial(home, "inspect", "local", str(p), str(offset), "--task", "digits")["payload"]
    assert shown["norm"] > 0.0
    assert [tensor["bytes"] for tensor in shown["tensors"]] == [
        (math.prod(tensor["shape"]) + 1) // 2 for tensor in shown["tensors"]
    ]

    again = fluvial(home, "audit", "--task", "digits")
    assert again["digest"] == told["audit"]["digest"]

    # The checker, which shares no code with the workers, comes to the same.
    report = check(
        CheckRequest(
            kafka=checker_connection(settings),
            store=StoreAddress(path=str(settings.store.path)),
            task="digits",
            genesis_sha256=task.genesis_sha256,
            drained=False,
        )
    )
    assert [violation.message for violation in report.violations] == []
    assert report.identical and report.versions == told["versions"]
