"""The long-running processes as an operator meets them: how they end, what they bind, and how they refuse to start."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import psutil
import pytest

from schemas.topics import metrics_topic
from tests import factories
from tests.integration.pipeline import Federation, run_command, start_process
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

STOP_S = 120.0
POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def listening_ports(pid: int) -> set[int]:
    process = psutil.Process(pid)
    everybody = [process, *process.children(recursive=True)]
    return {
        connection.laddr.port
        for one in everybody
        for connection in one.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_worker_and_merger_bind_their_metrics_only_and_end_cleanly_on_sigterm(federation: Federation) -> None:
    worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
    for seed in range(2):
        federation.append(("eu", 0), federation.update(f"d-{seed}", seed=seed))
    federation.await_version(1)
    assert [len(listening_ports(one.process.pid)) for one in (worker, merger)] == [1, 1]
    for one in (worker, merger):
        one.signal(signal.SIGTERM)
    assert [one.process.wait(STOP_S) for one in (worker, merger)] == [0, 0], federation.logs()
    for one in (worker, merger):
        assert "Traceback" not in one.log


def test_the_evaluator_evaluates_binds_its_metrics_only_and_ends_cleanly(
    stack: Settings, tmp_path: Path
) -> None:
    task = f"digits-{tmp_path.name[-8:].strip('_-').lower().replace('_', '-')}-{time.time_ns() % 10**6}"
    created = run_command(stack.home, "task", "create", "digits", "--name", task, "--regions", "eu:1")
    assert created.returncode == 0, created.stderr
    evaluator = start_process(
        stack.home, tmp_path, ["evaluator", "--task", task, "--name", "evaluator"], "evaluator"
    )
    try:
        evaluator.says("version 0: accuracy")
        assert len(listening_ports(evaluator.process.pid)) == 1
        # It is told to stop only once it runs: before that a signal just ends it.
        until(
            lambda: "consumer" in evaluator.log or psutil.Process(evaluator.process.pid).num_threads() > 3,
            "it runs",
        )
        assert evaluator.stop(STOP_S) == 0
    finally:
        if evaluator.process.poll() is None:
            evaluator.kill()
    assert "Traceback" not in evaluator.log
    from backends.kafka.reading import LogReader

    with LogReader(stack, "test-metrics") as reader:
        record = reader.last(metrics_topic(task), 0)
    assert record is not None
    metrics = json.loads(record.value or b"")
    assert (metrics["version"], metrics["task"]) == (0, task)
    assert 0.0 <= metrics["accuracy"] <= 1.0
    _shows_its_evaluations_again(stack, tmp_path, task, metrics["accuracy"])


def _shows_its_evaluations_again(stack: Settings, tmp_path: Path, task: str, accuracy: float) -> None:
    """The next evaluator evaluates nothing, and its metrics go on where those of the one before ended."""
    arguments = ["evaluator", "--task", task, "--name", "again", "--target", f"{accuracy / 2}"]
    again = start_process(stack.home, tmp_path, arguments, "again")
    try:
        again.says("metrics of again: ")
        page = again.log.partition("metrics of again: ")[2].split()[0]

        def shown() -> str:
            with urllib.request.urlopen(page, timeout=WAIT_S) as answer:
                text: str = answer.read().decode()
            return text if "fluvial_validation_accuracy " in text else ""

        text = until(shown, f"the accuracy is shown\n{again.log}", 60)
        assert again.stop(STOP_S) == 0
    finally:
        if again.process.poll() is None:
            again.kill()
    assert f"fluvial_validation_accuracy {accuracy}" in text
    assert "fluvial_versions_to_target 0.0" in text
    assert "version 0: accuracy" not in again.log


def test_a_worker_of_an_unknown_region_is_refused(federation: Federation) -> None:
    done = run_command(
        federation.settings.home, "worker", "--task", federation.task, "--region", "mars",
        "--key", str(federation.keys / "eu" / "worker" / "worker-eu.pem"),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "error[FLV-3201]" in done.stderr and "'mars'" in done.stderr
    assert "hint: its regions are: eu" in done.stderr


def test_a_worker_of_an_unknown_region_is_refused_for_its_region_and_not_for_its_key(
    federation: Federation,
) -> None:
    done = run_command(federation.settings.home, "worker", "--task", federation.task, "--region", "mars")
    assert done.returncode == 4, done.stderr
    assert "FLV-3201" in done.stderr or "FLV-2407" in done.stderr, done.stderr


@pytest.mark.parametrize("kind", ["worker", "merger", "evaluator"])
def test_with_the_stack_down_nothing_starts(federation: Federation, tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / federation.task).symlink_to(federation.keys.parent)
    region = ["--region", "eu"] if kind == "worker" else []
    done = run_command(home, kind, "--task", federation.task, *region)
    assert done.returncode == 2, done.stderr
    assert "error[FLV-1001]" in done.stderr and " up`" in done.stderr
