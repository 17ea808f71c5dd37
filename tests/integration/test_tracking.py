"""`fluvial track` against MLflow's own server, TensorBoard's own reader, and a tracker of a user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from backends.environment import child_environment
from backends.settings import Settings
from fluvial import cli
from fluvial.local.ports import choose as free_port
from fluvial.tracking.mlflow_runs import EXPERIMENT
from tests.small_federation import SmallFederation, declare
from tests.waiting import until

TASK = "tracked"
Track = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def federation(stack: Settings) -> Iterator[SmallFederation]:
    """Two versions, both evaluated."""
    declare(stack, TASK, {"eu": 2, "us": 1})
    federation = SmallFederation(stack, task=TASK)
    federation.rounds(2)
    federation.writer.append_now(
        f"fl.{TASK}.metrics", b'{"kind": "evaluation", "version": "one"}', partition=0
    )
    for version in range(3):
        federation.evaluated(version, 0.5 + version / 10)
    federation.write_task_file()
    yield federation
    (stack.home / "tasks" / TASK / "task.json").unlink()


@pytest.fixture
def track(federation: SmallFederation, capsys: pytest.CaptureFixture[str]) -> Track:
    """The command in this process, told to give its document."""

    def call(*arguments: str, code: int = 0) -> dict[str, object]:
        capsys.readouterr()
        words = ["--home", str(federation.settings.home), "track", "--task", TASK, *arguments, "--json"]
        got = cli.main(words)
        answer = capsys.readouterr()
        assert got == code, answer.err
        found: dict[str, object] = json.loads(answer.out)
        return found

    return call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of our own."""
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"http://127.0.0.1:{(port := free_port())}"
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    words += ["--default-artifact-root", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, cwd=folder, start_new_session=True,
            env=child_environment({"MLFLOW_DISABLE_TELEMETRY": "true"}),
        )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return requests.get(f"{address}/health", timeout=1).ok
        except requests.RequestException:
            return False

    try:
        until(answers, "MLflow's server answers")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it has processes of its own, and waits long for them
        process.wait(30)


def only_run(server: str) -> Run:
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def steps(server: str, metric: str) -> list[tuple[int, float]]:
    history = MlflowClient(tracking_uri=server).get_metric_history(only_run(server).info.run_id, metric)
    return sorted((one.step, one.value) for one in history)


@pytest.mark.long
def test_mlflow_has_a_run_with_every_version_and_a_second_telling_adds_what_is_new(
    federation: SmallFederation, track: Track, server: str
) -> None:
    assert track("--to", f"mlflow={server}")["told"] == 2
    run = only_run(server)
    assert run.info.run_name == TASK and run.info.status == "FINISHED"
    assert run.data.params["policy.window.updates_max"] == str(federation.policy.window.updates_max)
    assert steps(server, "accuracy") == [(1, 0.6), (2, 0.7)]
    assert steps(server, "fluvial/updates") == [(1, 9.0), (2, 9.0)]
    assert track("--to", f"mlflow={server}")["told"] == 0
    federation.rounds(1)
    federation.evaluated(3, 0.8)
    assert track("--to", f"mlflow={server}")["version"] == 3
    assert steps(server, "accuracy") == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert only_run(server).data.tags["fluvial.model_sha256"] == federation.objects.manifest(3).model_sha256


def test_tensorboard_reads_every_version_and_a_second_telling_adds_what_is_new(
    track: Track, tmp_path: Path
) -> None:
    assert (
        track("--to", f"tensorboard={tmp_path}")["version"]
        == track("--to", f"tensorboard={tmp_path}")["version"]
    )
    (folder,) = tmp_path.iterdir()
    events = EventAccumulator(str(folder)).Reload()
    told = [(one.step, round(float(one.tensor_proto.float_val[0]), 4)) for one in events.Tensors("accuracy")]
    assert told[:2] == [(1, 0.6), (2, 0.7)] and len(told) == len(set(told))


OWN = """
class Own:
    def on_start(self, task):
        print("start", task.name, len(task.genesis_sha256))
    def on_version(self, version):
        with open({file!r}, "a") as file:
            print(version.version, version.metrics["accuracy"], version.updates, version.refused, file=file)
"""


def test_a_tracker_of_ones_own_is_a_class_in_a_file(track: Track, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.format(file=str(tmp_path / "told")))
    track("--to", f"{tmp_path / 'mine.py'}:Own")
    assert (tmp_path / "told").read_text().splitlines()[:2] == ["1 0.6 9 0", "2 0.7 9 0"]


def test_a_server_that_is_away_is_said_so(track: Track) -> None:
    found = track("--to", f"mlflow=http://127.0.0.1:{free_port()}", code=2)
    assert found["error"]["id"] == "FLV-7060"  # type: ignore[index]
