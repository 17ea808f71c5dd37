"""Which processes there are, of which region, and whether they answer: from their files, whoever wrote them."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.console import looks
from fluvial.console.limits import SLOW_LOOKS_MAX
from fluvial.console.looks import Process, open_process_look
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, targets_folder
from fluvial.processes.observing import observing
from tests.unit.fluvial.processes.test_metrics_server import settings

if TYPE_CHECKING:
    from pathlib import Path

TASK = "t"
REGIONS = ("eu", "us")


def looked(home: Path) -> tuple[Process, ...]:
    with open_process_look(home, TASK, lambda: REGIONS) as look:
        return look()


def write(home: Path, name: str, port: int | None = None, **labels: Any) -> None:
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    folder = targets_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"task": TASK, "role": "worker", "process": name} | labels
    (folder / f"{TASK}-{name}.1.json").write_text(
        json.dumps([{"targets": [f"127.0.0.1:{port}"], "labels": whole}])
    )


@pytest.mark.parametrize(
    ("name", "label", "region"),
    [
        ("worker-0", "eu", "eu"),
        ("anything", "us", "us"),
        ("worker-us-0", "eu", "eu"),
        ("worker-us-0", None, "us"),
        ("worker-eu-host-1", None, "eu"),
        ("worker-0", None, None),
        ("worker-0", "elsewhere", None),
        ("worker-0", ["eu"], None),
    ],
)
def test_a_process_that_is_gone_is_of_the_region_that_it_told(
    tmp_path: Path, name: str, label: Any, region: str | None
) -> None:
    write(tmp_path, name, **({} if label is None else {"__fluvial_region": label}))
    (found,) = looked(tmp_path)
    assert (found.name, found.region, found.state) == (name, region, "gone")


def test_what_a_worker_writes_of_itself_says_its_region_whatever_its_name(tmp_path: Path) -> None:
    identity = ProcessIdentity(TASK, "worker", "first", "us")
    with observing(settings(tmp_path), identity, MetricsOptions(), say=lambda _: None, warn=lambda _: None):
        (found,) = looked(tmp_path)
    assert (found.name, found.region, found.role) == ("first", "us", "worker")
    assert found.state != "gone"


def test_a_process_that_is_slow_is_what_it_was_for_a_while_and_then_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused one has its port: who connects waits. One that was killed has none, and is gone at once."""
    monkeypatch.setattr(looks, "PORT_ANSWER_S", 0.05)
    silent = socket.create_server(("127.0.0.1", 0))
    write(tmp_path, "worker-eu-0", port=silent.getsockname()[1])
    with silent, open_process_look(tmp_path, TASK, lambda: REGIONS) as look:
        states = [look()[0].state for _ in range(SLOW_LOOKS_MAX + 1)]
        assert states == ["starting"] * (SLOW_LOOKS_MAX - 1) + ["gone"] * 2
        silent.close()
        assert look()[0].state == "gone"


def test_one_answer_in_time_makes_a_slow_process_what_it_says() -> None:
    ready = Process("worker", "w", "eu", "ready", "", 1)
    slow = replace(ready, state="slow", reason="port 1 does not answer in 0.5 s")
    shown = (ready, 0)
    for state in ("slow", "slow", "ready", "slow", "slow", "slow", "slow"):
        shown = looks._patient(replace(slow, state=state), shown)
        assert shown[0].state == "ready"
    assert looks._patient(slow, shown)[0].state == "gone"


@pytest.mark.parametrize(
    "text", ["", "[]", "[{}]", '[{"targets": [], "labels": {}}]', "{", '[{"targets": ["x"]}]']
)
def test_a_file_that_is_none_is_no_process(tmp_path: Path, text: str) -> None:
    write(tmp_path, "worker-0")
    (targets_folder(tmp_path) / "t-other.1.json").write_text(text)
    assert [one.name for one in looked(tmp_path)] == ["worker-0"]


def test_processes_of_another_task_are_not_shown(tmp_path: Path) -> None:
    write(tmp_path, "worker-0", task="another")
    assert looked(tmp_path) == ()
