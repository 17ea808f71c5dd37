"""Which policy wins: the command line's file, then the task file's POLICY, then the defaults of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from fluvial.cli import main
from fluvial.local.policies import layered_policy, read_policy_file, require_reachable

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = "[window]\nseconds_max = 0.25\n\n[buffer]\nupdates = 9\n"
TASK = {"buffer": {"updates": 7}}


def test_the_defaults_hold_where_nobody_else_speaks() -> None:
    policy = layered_policy(task={}, defaults=DEFAULTS)
    assert (policy.buffer.updates, policy.window.seconds_max) == (9, 0.25)


def test_the_task_file_goes_before_the_defaults_key_by_key() -> None:
    policy = layered_policy(task=TASK, defaults=DEFAULTS)
    assert (policy.buffer.updates, policy.window.seconds_max) == (7, 0.25)


def test_the_command_line_goes_before_both_key_by_key() -> None:
    policy = layered_policy(
        explicit="[buffer]\nupdates = 5\n", task=TASK | {"window": {"seconds_max": 3.0}}, defaults=DEFAULTS
    )
    assert (policy.buffer.updates, policy.window.seconds_max) == (5, 3.0)


def test_laying_over_changes_none_of_the_layers() -> None:
    task = {"buffer": {"updates": 7}}
    layered_policy(explicit="[buffer]\nupdates = 5\n", task=task, defaults=DEFAULTS)
    assert task == {"buffer": {"updates": 7}}


@pytest.mark.parametrize("content", [b"[buffer\n", b"\xff\xfe\x00"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(UsageProblem) as caught:
        read_policy_file(path)
    assert caught.value.error_id == "FLV-2001"
    assert caught.value.where == str(path) and caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "digits"], "[buffer]\nnope = 1\n"),
        (["run", "digits"], "[buffer\n"),
        (["run", "digits", "--simulate"], "[buffer]\nnope = 1\n"),
    ],
)
def test_a_wrong_policy_is_refused_before_anything_starts(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    assert main(["--home", str(tmp_path / "home"), *arguments, "--policy", str(path)]) == 4
    assert "error[FLV-2001]" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_simulation_obeys_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[updates]\ncodecs = ["float32"]\n[buffer]\nupdates = 3\n')
    common = ["run", "digits", "--simulate", "--versions", "2", "--devices", "4", "--json"]
    assert main([*common, "--policy", str(path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["versions"] == 2 and said["verdicts"]["accepted"] >= 6
    assert main([*common, "--policy", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["model_sha256"] == said["model_sha256"]


def test_a_quorum_that_the_devices_cannot_reach_is_refused_before_anything_starts() -> None:
    policy = layered_policy(explicit="[buffer]\nquorum = 7\n", task={}, defaults="[buffer]\nupdates = 9\n")
    require_reachable(policy, 7)
    with pytest.raises(UsageProblem, match=r"buffer\.quorum = 7 .* than 6 devices") as caught:
        require_reachable(policy, 6)
    assert caught.value.error_id == "FLV-2002"
