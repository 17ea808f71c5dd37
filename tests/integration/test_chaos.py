"""`fluvial chaos` on the real stack: a short run keeps every promise, and an interrupted one leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from backends.environment import child_environment
from fluvial.local import tools

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
RUN_TIMEOUT_S = 480.0
START_TIMEOUT_S = 480.0
STOP_TIMEOUT_S = 120.0
SEED = "21"
"""Its faults hit guardians early, and everybody else but broker and store."""
KINDS = "kill,pause,network" if not tools.go_problem() else "kill,pause"

pytestmark = pytest.mark.timeout(600)


def start(home: Path, arguments: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "fluvial.cli", "--home", str(home), "chaos", *arguments]
    environment = child_environment({"PYTHONPATH": str(ROOT)})
    with said.open("wb") as output:
        return subprocess.Popen(
            command, cwd=home.parent, stdout=output, stderr=subprocess.STDOUT, env=environment
        )


def processes_of(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(home / "chaos") in words:
            found.append(words)
    return found


def nothing_is_left(home: Path) -> None:
    assert processes_of(home) == []
    assert str(home) not in Path("/proc/self/mounts").read_text()
    assert not (home / "chaos").exists()
    assert {path.name for path in home.iterdir() if not path.name.startswith("chaos-")} <= {
        ".gitignore",
        "logs",
        "run",
    }
    assert {path.name for path in home.parent.iterdir()} <= {"home", "said", "result.json"}


def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    """Of a guided task with attackers, its parts by users and passwords under ACLs: the rest has less to go wrong."""
    home, said, target = tmp_path / "home", tmp_path / "said", tmp_path / "result.json"
    arguments = ["--seconds", "20", "--seed", SEED, "--faults", KINDS, "--devices", "8", "--regions", "eu"]
    guided = ["--defence", "guide", "--attackers", "2", "--security", "scram"]
    run = start(home, [*arguments, *guided, "--json", str(target)], said)
    try:
        code = run.wait(RUN_TIMEOUT_S)
    finally:
        run.kill()
    assert code == 0, said.read_text()
    result: dict[str, Any] = json.loads(target.read_text())
    assert set(result["faults"]) == set(KINDS.split(","))
    assert sum(result["faults"].values()) >= 4
    assert (result["lost"], result["double"], result["forks"]) == (0, 0, 0)
    assert result["identical"] and result["violations"] == [] and result["undrained"] == 0
    assert result["acknowledged"] > 0 and result["versions"] > 0
    assert result["security"] == "scram" and 0 < result["guided_versions"] <= result["versions"]
    assert result["outcomes"]["accepted"] > 0
    assert result["verdicts"] >= result["acknowledged"]
    events = [json.loads(line) for line in Path(result["history"]).read_text().splitlines()]
    assert (
        sum(event["f"] == "publish" and event["type"] == "ok" for event in events) == result["acknowledged"]
    )
    faults = [event for event in events if event["f"] in result["faults"] and event["type"] == "invoke"]
    assert len(faults) >= 4
    assert any(fault["target"].startswith("guardian") for fault in faults), "the seed was chosen for it"
    nothing_is_left(home)


@pytest.mark.long
def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    home, said = tmp_path / "home", tmp_path / "said"
    secured = ["--security", "tls"]
    run = start(home, ["--seconds", "300", "--faults", "pause,disk", "--regions", "eu", *secured], said)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "fault 1:" not in said.read_text():
            assert run.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        assert run.wait(STOP_TIMEOUT_S) == 130, said.read_text()
    finally:
        run.kill()
    nothing_is_left(home)
    assert (home / "chaos-0-history.jsonl").read_text()


def test_the_chaos_home_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    home, said = tmp_path / "home", tmp_path / "said"
    (home / "chaos").mkdir(parents=True)
    (home / "chaos" / "thesis.txt").write_text("mine")
    run = start(home, ["--faults", "kill"], said)
    assert run.wait(STOP_TIMEOUT_S) == 4
    assert "FLV-6402" in said.read_text()
    assert (home / "chaos" / "thesis.txt").read_text() == "mine"
