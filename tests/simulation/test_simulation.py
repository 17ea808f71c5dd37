"""Schedules by the hundred, and that a broken system would not get through them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream_apps.merger.loop import MergeLoop
from stream_apps.worker.region import RegionWorker
from tests.simulation.crowd import SimulatedDevice
from tests.simulation.federation import Federation
from tests.simulation.mutants import mutate
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str, module: str = "tests.simulation") -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", module, "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=570, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_150_schedules_break_no_invariant() -> None:
    """The slow lane runs thousands."""
    code, result = simulate("--seeds", "150")
    assert (code, result["failed"], result["schedules"]) == (0, 0, 150), result["seeds"]
    # A schedule that nothing strikes, or that makes no version, would prove nothing.
    assert result["versions"] > 150
    assert all(result["faults"][kind] > 50 for kind in ("kill", "pause", "store away", "log away"))


@pytest.mark.parametrize(
    "part", [(SimulatedDevice, "_publish"), (RegionWorker, "tick"), (MergeLoop, "merge_if_due")]
)
def test_an_error_that_nobody_awaits_ends_the_run(
    part: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise TypeError("a defect in the part itself")

    monkeypatch.setattr(*part, fails)
    with pytest.raises(TypeError, match="a defect in the part itself"):
        Federation(1).run()


def test_a_seed_is_one_history_in_whatever_process_it_runs() -> None:
    digests = {
        simulate("--first", "900", "--seeds", "12", "--jobs", jobs)[1]["digest"] for jobs in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.partition(":")[0])
def test_the_sources_hold_what_a_mutation_changes(mutation: Mutation, tmp_path: Path) -> None:
    for file, _, _ in mutation.edits:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    mutate(mutation, tmp_path)
    for file, _, _ in mutation.edits:
        compile((tmp_path / file).read_text(), file, "exec")


@pytest.mark.parametrize("name", ["the dedup", "the conditional header", "state in the snapshot: who"])
def test_a_safeguard_that_is_taken_away_is_missed(name: str) -> None:
    code, result = simulate("--only", name, module="tests.simulation.mutants")
    assert (code, result["lived"]) == (0, []), result["results"]
