"""The demo from outside, as a user runs it: to its end with processes killed, and ended by Ctrl-C in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from backends.environment import load_settings
from backends.store.factory import open_object_store
from fluvial.local.stack import LocalStack
from schemas.objects import model_key
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
DEMO_S = 480.0
SMALL = [
    "--devices",
    "12",
    "--regions",
    "eu,us:1",
    "--attackers",
    "1",
    "--misbehaving",
    "2",
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    try:
        yield folder
    finally:
        with contextlib.suppress(FileNotFoundError):
            LocalStack(folder).down()


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "fluvial.cli", "--home", str(home), *arguments]


def fluvial(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=DEMO_S, check=False
    )


def processes_of(home: Path) -> list[str]:
    """Every process that has this home on its command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if (
            str(home) in words
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and process.pid != os.getpid()
        ):
            found.append(words[:200])
    return found


def test_a_demo_with_kills_ends_with_every_verdict_and_an_identical_audit(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    done = fluvial(
        home, "demo", *SMALL, "--versions", "5", "--chaos", "2", "--seed", "3", "--json", str(target)
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(target.read_text())
    assert told["versions"] >= 5
    assert len(told["accuracy"]) == told["versions"]
    assert told["audit"]["identical"] is True and told["audit"]["versions"] == told["versions"]
    assert told["verdicts_missing"] == told["verdicts_conflicting"] == 0
    assert told["published"] > 0
    assert sum(told["verdicts"].values()) >= told["published"]
    assert told["updates_accepted"] == told["verdicts"]["accepted"] > 0
    assert len(told["chaos"]) == 2
    # A new home is secured: every process has run under its role.
    settings = load_settings(home, {})
    assert settings.kafka.has_tls and told["store"] == settings.store.kind
    assert settings.store.kind == "file" or settings.store.secure
    report = home / "reports" / "digits" / "report.html"
    assert report.is_file() and "Processes killed on purpose" in report.read_text()
    assert "fluvial" in done.stdout and "audit --task digits" in done.stdout
    assert "watch it live: http://127.0.0.1:" in done.stderr
    assert str(report) in done.stdout
    # The model that the summary names is there, and is the one that the document names.
    key = model_key("digits", told["versions"])
    assert told["model"].endswith(key) and open_object_store(settings.store).exists(key)
    # What the last lines tell the user to do next works, and agrees.
    again = fluvial(home, "audit", "--task", "digits", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["digest"] == told["audit"]["digest"]
    # Only the stack still runs: no worker, merger, evaluator, fleet or console.
    assert not [words for words in processes_of(home) if "fluvial.cli" in words]
    assert fluvial(home, "down").returncode == 0
    assert processes_of(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_ctrl_c_in_mid_demo_leaves_nothing_behind(home: Path, tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        demo = subprocess.Popen(
            command(home, "demo", *SMALL, "--versions", "1000"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        until(lambda: "training" in log.read_text() or demo.poll() is not None, "the training begins", DEMO_S)
        until(lambda: any(" worker " in words for words in processes_of(home)), "the workers run")
        os.kill(demo.pid, number)
        assert demo.wait(60) == 130, log.read_text()
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    assert "interrupted" in log.read_text()
    until(lambda: processes_of(home) == [], "everything has ended")


def test_a_task_that_cannot_train_fails_the_run_with_its_own_line(home: Path, tmp_path: Path) -> None:
    source = (ROOT / "learning" / "tasks" / "digits.py").read_text()
    broken = tmp_path / "broken.py"
    broken.write_text(
        source.replace("    return learning.fit(", "    raise RuntimeError('no luck')\n    learning.fit(")
    )
    done = fluvial(home, "run", str(broken), "--devices", "4", "--versions", "2", "--store", "file")
    assert done.returncode == 4
    assert "FLV-2208" in done.stderr and "no luck" in done.stderr
    assert "is up" not in done.stderr, "one batch was tried before anything was started"
    assert processes_of(home) == []
