"""`fluvial simulate` and `fluvial compare`, as one calls them: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fluvial.cli import main
from tests.unit.fluvial.simulating.test_simulator import TASK

CROWD = ("--devices", "24", "--at-once", "12")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "crowd.py"
    file.write_text(TASK.replace("BEFORE", "pass"))
    return file


def policy(folder: Path, name: str, updates: int) -> str:
    path = folder / name
    path.write_text(f"[buffer]\nupdates = {updates}\n")
    return str(path)


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_a_simulation_prints_one_document_and_writes_its_curve(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document: dict[str, Any] = {}
    for name in ("curve.csv", "curve.jsonl"):
        words = (
            "simulate",
            str(task),
            *CROWD,
            "--versions",
            "3",
            "--no-check",
            "--curve",
            str(tmp_path / name),
        )
        code, document, err = called(capsys, *words)
        assert code == 0
        assert "version 3" in err
    assert document["versions"] == len(document["curve"]) == 3
    assert document["verdicts"] == {"accepted": document["updates"]}
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert lines == document["curve"]
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [line["metrics"]["accuracy"] for line in lines]
    assert [row["model_sha256"] for row in rows] == [line["model_sha256"] for line in lines]


def test_what_is_left_out_is_said_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("simulate", "--synthetic", "200", "--devices", "100000", "--at-once", "50", "--versions", "2")
    code, document, err = called(capsys, *words)
    assert (code, document["signed"]) == (0, False)
    assert "UNSIGNED" in err
    code, document, err = called(capsys, *words, "--signed")
    assert (code, document["signed"]) == (0, True)
    assert "UNSIGNED" not in err


def test_policies_are_compared_on_the_same_crowd_and_drawn(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = policy(tmp_path, "four.toml", 4), policy(tmp_path, "ten.toml", 10)
    page = tmp_path / "page" / "compare.html"
    words = ("--task", str(task), *CROWD, "--seeds", "2", "--target", "loss=0.8", "--no-check")
    code, document, err = called(capsys, "compare", first, second, *words, "--report", str(page))
    assert code == 0
    assert "ten, seed 1" in err
    four, ten = document["policies"]
    assert (four["name"], ten["name"], document["first"]) == ("four", "ten", "four")
    assert four["reached"] == ten["reached"] == 2
    assert set(four["times_the_first"].values()) == {1.0}
    for axis, times in ten["times_the_first"].items():
        assert times == ten["mean"][axis] / four["mean"][axis]
    assert ten["times_the_first"]["device_seconds"] > 1.0
    for one in (four, ten):
        for run in one["runs"]:
            assert run["target"]["metrics"]["loss"] <= 0.8 < run["curve"][-2]["metrics"]["loss"]
    text = page.read_text()
    assert text.count("<svg") == 10
    assert "--series-2" in text
    assert "<script" not in text
    assert main(["compare", first, second, *words]) == 0
    out = capsys.readouterr().out
    assert "to the target ten takes" in out


def test_the_same_policy_twice_is_the_same_twice(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = policy(tmp_path, "one.toml", 6)
    words = ("--task", str(task), *CROWD, "--versions", "3", "--no-check")
    _, document, _ = called(capsys, "compare", one, one, *words)
    first, second = document["policies"]
    assert (first["name"], second["name"]) == ("one", "one-2")
    assert first["runs"][0]["curve"] == second["runs"][0]["curve"]


@pytest.mark.parametrize(
    ("words", "error_id"),
    [
        (("simulate",), "FLV-6450"),
        (("simulate", "TASK", "--synthetic", "10"), "FLV-6450"),
        (("simulate", "--synthetic", "10", "--target", "accuracy=0.5"), "FLV-6450"),
        (("simulate", "TASK", "--target", "soon"), "FLV-2247"),
        (("simulate", "TASK", "--target", "joy=1"), "FLV-2249"),
        (("simulate", "TASK", "--regions", "eu:0"), "FLV-2405"),
        (("simulate", "TASK", "--awake", "0"), "FLV-6450"),
        (("simulate", "TASK", "--trace", "TRACE", "--devices", "3"), "FLV-6450"),
        (("simulate", "TASK", "--trace", "HOLES"), "FLV-6451"),
        (("simulate", "TASK", "--curve", "FOLDER/is/none.csv", "--versions", "1"), "FLV-6308"),
        (("compare", "POLICY", "BROKEN", "--task", "TASK"), "FLV-2001"),
        (("compare", *["POLICY"] * 7, "--task", "TASK"), "FLV-6450"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_trained(
    words: tuple[str, ...], error_id: str, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.csv").write_text("device,start_s,end_s,round_s\na,0,9,1\n")
    (tmp_path / "holes.csv").write_text("device,start_s,end_s,round_s\na,0,9\n")
    (tmp_path / "broken.toml").write_text("[buffer\n")
    (tmp_path / "a-file").write_text("")
    names = {
        "TASK": str(task),
        "TRACE": str(tmp_path / "trace.csv"),
        "HOLES": str(tmp_path / "holes.csv"),
        "BROKEN": str(tmp_path / "broken.toml"),
        "POLICY": policy(tmp_path, "one.toml", 6),
        "FOLDER/is/none.csv": str(tmp_path / "a-file" / "none.csv"),
    }
    code, document, err = called(capsys, *(names.get(word, word) for word in words))
    assert code in {2, 4}
    assert document["error"]["id"] == error_id
    assert document["error"]["hint"]
    assert "version 1" not in err


def test_ctrl_c_leaves_nothing_behind(task: Path) -> None:
    import os
    import signal
    import subprocess
    import sys

    import psutil

    from backends.environment import child_environment

    words = ["simulate", str(task), *CROWD, "--versions", "100000", "--processes", "2", "--no-check"]
    root = Path(__file__).parents[4]
    running = subprocess.Popen(
        [sys.executable, "-m", "fluvial.cli", *words],
        cwd=root,
        env=child_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("version 2"):
            break
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) == 130
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert (len(gone), alive) == (len(children), [])
    running.stderr.close()
