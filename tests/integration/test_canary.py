"""A canary against a real worker: seen in time, missed when the worker is gone, seen again; and the model stays."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.keys import authority_path
from backends.settings import Settings
from backends.tasks import keys_folder
from schemas.topics import metrics_topic
from tests import factories
from tests.integration.pipeline import Federation, Running, run_command, start_process
from tests.waiting import WAIT_S, until


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    one = Federation(stack, tmp_path, {"eu": 1}, factories.policy())
    yield one
    one.end()


def lines(process: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]


def last(process: Running, key: str, value: object, after: int) -> object:
    return until(
        lambda: any(one.get(key) == value for one in lines(process)[after:]),
        f"{key} is {value}\n{process.log}",
    )


def test_a_canary_sees_a_worker_go_and_come_back(
    federation: Federation, stack: Settings, tmp_path: Path
) -> None:
    worker = federation.start("worker", "worker-1")
    arguments = ["canary", "--task", federation.task, "--region", "eu", "--every", "0.5", "--objective", "3"]
    canary = start_process(stack.home, tmp_path, [*arguments, "--json"], "canary")
    federation.running.append(canary)
    try:
        last(canary, "outcome", "future_base", 0)
        worker.kill()
        last(canary, "reason", "late", len(lines(canary)))
        federation.start("worker", "worker-1")
        last(canary, "ok", True, len(lines(canary)))  # noqa: FBT003
        assert run_command(stack.home, *arguments, "--once").returncode == 0
    finally:
        canary.signal(signal.SIGTERM)
    assert canary.process.wait(WAIT_S) == 0, canary.log
    end = lines(canary)[-1]
    assert end["terminal"] is True and end["published"] >= end["judged"] > 0 < end["failed"]["late"]
    assert "error[FLV-7071]" in canary.log and federation.head == 0


def test_a_canary_counts_in_the_manifest_and_not_in_what_people_look_at(
    stack: Settings, tmp_path: Path
) -> None:
    policy = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})
    federation = Federation(stack, tmp_path, {"eu": 1}, policy)
    try:
        federation.start("worker", "worker")
        federation.start("merger", "merger")
        for _ in range(2):
            done = run_command(stack.home, "canary", "--task", federation.task, "--region", "eu", "--once")
            assert done.returncode == 0, done.stderr
        federation.append(("eu", 0), b"junk")
        for seed in range(2):
            federation.append(("eu", 0), federation.update(f"d-{seed}", seed=seed))
        federation.await_version(1, 60)
        status = until(lambda: _status(stack, federation.task), "its version is told", 30)
    finally:
        federation.end()
    assert dict(federation.store.manifest(1).counts) == {"accepted": 2, "future_base": 2, "undecodable": 1}
    assert (status["refused_share"], status["refused_share_versions"]) == (pytest.approx(1 / 3), 1)
    values = [record.value or b"" for record in federation.records(metrics_topic(federation.task))]
    by_kind = {one["kind"]: one for one in map(json.loads, values)}
    for kind in ("version", "window"):
        one = by_kind[kind]
        assert (one["canaries"], one["refused"], one["verdicts_undecodable"]) == (2, 1, 1), kind
        assert "verdicts_future_base" not in one


def _status(stack: Settings, task: str) -> dict[str, Any]:
    """``fluvial status``, once the refused share is not that of the manifest any more."""
    done = run_command(stack.home, "status", "--task", task, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found if found["refused_share"] < 0.5 else {}


def test_once_without_a_worker_is_a_timeout_and_its_hint_mends_it(
    federation: Federation, stack: Settings, tmp_path: Path
) -> None:
    """It says that no worker runs, and not that one is late; Ctrl-C ends a canary that goes on, with 0."""
    arguments = ["canary", "--task", federation.task, "--region", "eu", "--objective", "0.5"]
    done = run_command(stack.home, *arguments, "--once", "--json")
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["id"] == "FLV-7071"
    assert error["message"] == "no worker of region eu runs, so the update got no verdict within 0.5 s"
    (command,) = re.findall("`(.*)`", error["hint"])
    start = shlex.split(command)
    assert start[:3] == ["fluvial", "--home", str(stack.home)]
    canary = start_process(stack.home, tmp_path, arguments, "interrupted")
    federation.running.append(canary)
    canary.says("FLV-7071")
    time.sleep(0.1)
    canary.signal(signal.SIGINT)
    assert canary.process.wait(WAIT_S) == 0, canary.log
    federation.running.append(start_process(stack.home, tmp_path, [*start[3:], "--no-metrics"], "worker"))
    patient = ["canary", "--task", federation.task, "--region", "eu", "--objective", "60", "--once"]
    done = run_command(stack.home, *patient)
    assert (done.returncode, "future_base as expected" in done.stdout) == (0, True), done.stderr


def test_a_machine_without_the_ca_says_which_command_issues_the_key(
    federation: Federation, stack: Settings
) -> None:
    authority_path(keys_folder(stack.home, federation.task), "eu").unlink()
    done = run_command(stack.home, "canary", "--task", federation.task, "--region", "eu", "--once")
    assert done.returncode == 4 and "FLV-2302" in done.stderr
    command = (
        f"fluvial --home {stack.home} ca issue --task {federation.task} --region eu --role device canary-eu"
    )
    assert command in done.stderr
