"""What `make peers` stands on: processes count for the right side and are all ended; an index that is away is said."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peer_runs import Load, Peer, Sample, Watch, logged_rounds, noted_rounds

BUSY = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
PARENT = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1], 'the-client'])"


def start(watch: Watch, folder: Path, *arguments: str) -> psutil.Process:
    command = [sys.executable, "-c", *arguments]
    child = watch.start(command, folder / "log", cwd=folder, environment={"PATH": os.defpath})
    return psutil.Process(child.pid)


def children_of(parent: psutil.Process) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    found: list[psutil.Process] = []
    while not found:
        assert time.monotonic() < deadline
        found = parent.children(recursive=True)
    return found


def await_sample(watch: Watch, *, cpu_s: float) -> None:
    deadline = time.monotonic() + 60
    while not watch.samples or watch.samples[-1].cpu_s < cpu_s:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_that_was_started_is_ended_even_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Watch() as watch:  # noqa: PT012 (what is left behind by it is the case)
        parent = start(watch, tmp_path, PARENT, BUSY)
        everyone = [parent, *children_of(parent)]
        raise KeyboardInterrupt
    assert not any(process.is_running() for process in everyone)


def test_a_client_is_not_counted_whoever_started_it(tmp_path: Path) -> None:
    with Watch(("the-client",)) as watch:
        busy = children_of(start(watch, tmp_path, PARENT, BUSY))[0]
        while busy.cpu_times().user < 0.5:
            time.sleep(0.05)
        start(watch, tmp_path, BUSY)
        await_sample(watch, cpu_s=0.2)
        counted = watch.samples[-1].cpu_s
        assert busy.cpu_times().user > 0
    own = sum(seen.used_s for seen in watch._seen.values() if seen.server)
    assert watch.samples[-1].cpu_s == own >= counted
    assert [seen.server for process, seen in watch._seen.items() if process == busy] == [False]


def test_processor_time_is_read_between_samples() -> None:
    watch = Watch()
    watch.samples = [Sample(10.0, 1.0, 5), Sample(12.0, 3.0, 7), Sample(14.0, 3.5, 6)]
    assert watch.cpu_s(11.0, 13.0) == pytest.approx(1.25)
    assert watch.peak_rss_mb == pytest.approx(7e-6)


def test_an_index_that_is_away_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path))
    for name, value in {
        "UV_INDEX_URL": "http://127.0.0.1:9/",
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        SystemExit, match=r"cannot install nobody==1\.0 for Nobody: is the package index reached"
    ):
        Peer("Nobody", ("nobody==1.0",)).environment()
    assert not list(tmp_path.rglob(".ready"))


def test_rounds_are_read_from_what_the_peers_write(tmp_path: Path) -> None:
    noted, logged = tmp_path / "rounds.jsonl", tmp_path / "job.log"
    assert noted_rounds(noted, 4) == logged_rounds(logged, 4) == []
    noted.write_text("[1, 4, 10.5]\n[2, 4, 11.0]\n")
    assert noted_rounds(noted, 4) == [10.5, 11.0]
    noted.write_text("[1, 3, 10.5]\n")
    with pytest.raises(SystemExit, match="round 1 had 3 updates of 4 clients"):
        noted_rounds(noted, 4)
    lines = ("07:00:00,250 - INFO - Aggregated 3/4", "07:00:01,500 - INFO - Aggregated 4/4")
    logged.write_text("".join(f"2026-11-29 {line} results\n" for line in lines))
    (at_s,) = logged_rounds(logged, 4)
    assert at_s % 60 == pytest.approx(1.5)
    assert Load(1, 4, 5).warm < Load(1, 4, 5).rounds
