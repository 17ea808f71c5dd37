"""The home of a chaos run: fresh, removed, kept when there is something to look at, and never somebody else's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aggregation.errors import TimeoutProblem, UsageProblem
from fluvial.proof.chaos.home import MARKER, chaos_home
from fluvial.terminal.output import quiet_output


def test_it_is_there_while_the_block_runs_and_gone_afterwards(tmp_path: Path) -> None:
    with chaos_home(tmp_path, quiet_output(), keep=False) as own:
        (own.folder / "data").mkdir()
    assert not (tmp_path / "chaos").exists()


def test_it_is_kept_when_that_was_asked_for_and_empty_for_the_next_run(tmp_path: Path) -> None:
    with chaos_home(tmp_path, quiet_output(), keep=True) as own:
        (own.folder / "log").touch()
    assert (tmp_path / "chaos" / "log").exists()
    with chaos_home(tmp_path, quiet_output(), keep=False) as own:
        assert [path.name for path in own.folder.iterdir()] == [MARKER]


@pytest.mark.parametrize(("error", "kept"), [(ValueError, True), (KeyboardInterrupt, False)])
def test_a_failure_keeps_it_and_an_interruption_does_not(
    tmp_path: Path, error: type[BaseException], *, kept: bool
) -> None:
    def run() -> None:
        with chaos_home(tmp_path, quiet_output(), keep=False) as own, own.kept_on_failure():
            raise error

    with pytest.raises(error):
        run()
    assert (tmp_path / "chaos").exists() is kept


def test_a_folder_that_no_run_has_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chaos").mkdir()
    (tmp_path / "chaos" / "thesis").write_text("mine")
    with (
        pytest.raises(UsageProblem) as caught,
        chaos_home(tmp_path, quiet_output(), keep=False),
    ):
        pass
    assert caught.value.error_id == "FLV-6402"
    assert (tmp_path / "chaos" / "thesis").read_text() == "mine"


def test_two_runs_at_once_do_not_share_it(tmp_path: Path) -> None:
    with (
        chaos_home(tmp_path, quiet_output(), keep=False),
        pytest.raises(TimeoutProblem),
        chaos_home(tmp_path, quiet_output(), keep=False),
    ):
        pass


def test_processes_that_a_killed_run_has_left_are_ended_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen([*sleep, f"-Dfluvial.home={folder}"])
    part = subprocess.Popen([*sleep, "fluvial.cli", "--home", str(folder), "worker"])
    reader = subprocess.Popen([*sleep, str(folder)])
    neighbour = subprocess.Popen([*sleep, f"-Dfluvial.home={tmp_path}"])
    part.send_signal(signal.SIGSTOP)
    folder.mkdir()
    (folder / MARKER).touch()
    try:
        with chaos_home(tmp_path, quiet_output(), keep=False):
            assert ours.poll() is not None and part.poll() is not None
            assert reader.poll() is None and neighbour.poll() is None
    finally:
        for process in (ours, part, reader, neighbour):
            process.kill()
            process.wait()
