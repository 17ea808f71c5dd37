"""What is long by nature, run by `make test-long`: the same promises as in `make test`, over more faults and seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.environment import child_environment
from fluvial.local import tools
from tests.simulation.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
HOUR_S = 3600
CHAOS_S = 300
FUZZ_RECORDS = 50_000
DIFFERENTIAL_RECORDS = 1_000_000
SCHEDULES = 20_000

pytestmark = [pytest.mark.long, pytest.mark.timeout(HOUR_S)]


def document(*command: str, cwd: Path = ROOT) -> dict[str, Any]:
    """What a module of ours says with --json, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=cwd,
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=HOUR_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_twenty_thousand_schedules_break_no_invariant() -> None:
    found = document("tests.simulation", "--json", "--seeds", str(SCHEDULES))
    assert (found["failed"], found["schedules"]) == (0, SCHEDULES), found["seeds"]


def test_every_safeguard_that_is_taken_away_is_missed() -> None:
    found = document("tests.simulation.mutants", "--json")
    assert (found["lived"], found["mutations"]) == ([], len(MUTATIONS))


def test_fifty_thousand_bad_records_change_nothing() -> None:
    found = document("tests.fuzz.run", "--json", "--records", str(FUZZ_RECORDS))
    assert found["findings"] == [] and found["identical"] is True


def test_all_readers_agree_on_a_million_mutated_records_and_certificates() -> None:
    found = document("tests.fuzz.records", "--json", "--records", str(DIFFERENTIAL_RECORDS), "--seed", "2")
    assert found["findings"] == []
    assert found["records"] + found["certificates"] == DIFFERENTIAL_RECORDS


@pytest.mark.parametrize(
    ("seed", "more"),
    [
        (11, []),
        (12, ["--defence", "guide", "--attackers", "4", "--security", "tls"]),
        (13, ["--defence", "guide", "--attackers", "4", "--security", "scram"]),
    ],
)
def test_five_minutes_of_every_fault_lose_nothing(tmp_path: Path, seed: int, more: list[str]) -> None:
    target = tmp_path / "result.json"
    options = ["--seconds", str(CHAOS_S), "--seed", str(seed), "--json", str(target), *more]
    if tools.go_problem():
        options += ["--faults", "kill,pause"]  # the proxy of the network's faults is built with Go
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fluvial.cli", "--home", str(tmp_path / "home"), "chaos", *options],
        cwd=tmp_path,
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=HOUR_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(target.read_text())
    assert (result["lost"], result["double"], result["forks"], result["undrained"]) == (0, 0, 0, 0)
    assert result["identical"] and result["violations"] == []
