"""stdout is the command's: whatever users' code writes, in whatever way, goes to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fluvial import cli
from fluvial.terminal.output import Output

ROOT = Path(__file__).parents[4]
LOUD = """
import atexit, ctypes, os, subprocess, sys
import numpy as np
from torch import nn
import learning

def shout(where):
    print("print", where)
    sys.stdout.write(f"write {where}\\n")
    sys.__stdout__.write(f"the real one {where}\\n")
    os.write(1, f"descriptor {where}\\n".encode())
    libc = ctypes.CDLL(None)
    libc.puts(f"C {where}".encode())
    libc.fflush(None)
    subprocess.run(["echo", "a program", where], check=True)

shout("import")
atexit.register(lambda: os.write(1, b"descriptor exit\\n"))

def data():
    shout("data")
    x = np.arange(80.0).reshape(40, 2) / 80
    return learning.Dataset(train=(x, x[:, 0] > 0.5), test=(x, x[:, 0] > 0.5))

def model():
    return nn.Linear(2, 2)

def train(model, data, config):
    shout("train")
    return learning.fit(model, data, config)

def evaluate(model, data):
    shout("evaluate")
    return learning.score(model, data)
"""
WAYS = ("print", "write", "the real one", "descriptor", "C", "a program")


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    path = tmp_path / "loud.py"
    path.write_text(LOUD, encoding="utf-8")
    return path


def fluvial(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "fluvial.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_json_stays_one_document_whatever_a_task_prints(loud: Path) -> None:
    done = fluvial(loud.parent, "task", "check", "loud.py", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] is True
    lines = done.stderr.splitlines()
    for where in ("import", "data", "train", "evaluate"):
        assert {f"{way} {where}" for way in WAYS} <= set(lines)
    assert "descriptor exit" in lines


def test_an_error_is_one_document_too(loud: Path) -> None:
    loud.write_text(LOUD.replace('shout("train")', 'shout("train"); nonsense'))
    done = fluvial(loud.parent, "run", "loud.py", "--json")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["error"]["id"] == "FLV-2208"


def test_results_for_people_go_to_stdout_and_what_a_task_prints_does_not(loud: Path) -> None:
    done = fluvial(loud.parent, "task", "check", "loud.py")
    assert done.stdout.splitlines() == ["run it: `fluvial run loud.py --simulate`"]


def test_a_reader_that_has_seen_enough_is_no_error(loud: Path) -> None:
    command = f"{sys.executable} -P -m fluvial.cli task check loud.py --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=loud.parent, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() in {"0", "141"}, done.stderr
    assert "BrokenPipe" not in done.stderr


def test_who_calls_a_command_in_his_process_has_his_stdout_back(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    before = sys.stdout
    assert cli.main(["--home", str(home), "task", "list", "--json"]) == 0
    assert sys.stdout is before
    print("mine again")  # noqa: T201 (what is tested)
    out = capsys.readouterr().out
    document, _, rest = out.partition("}\n")
    assert json.loads(document + "}") == {"tasks": []}
    assert rest == "mine again\n"


def test_taking_it_twice_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.take_stdout()
    output.take_stdout()
    print("noise")  # noqa: T201 (what is tested)
    output.document({"a": 1})
    output.own_stdout.give_back()
    assert json.loads(capsys.readouterr().out) == {"a": 1}
