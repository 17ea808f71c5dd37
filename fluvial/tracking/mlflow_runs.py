"""A task as a run of an MLflow server. Telling it again adds what is new, and nothing twice."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, TypeVar

import mlflow
from mlflow.entities import Metric, Param
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_TRACKING_URI,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aggregation.errors import ConnectionProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.tracking.tracker import TrackedTask, TrackedVersion

DEFAULT_SERVER: Final = "http://127.0.0.1:5000"
EXPERIMENT: Final = "fluvial"
REQUEST_RETRIES: Final = 2
REQUEST_TIMEOUT_S: Final = 10
GENESIS_TAG: Final = "fluvial.genesis_sha256"
VERSION_TAG: Final = "fluvial.version"
MODEL_TAG: Final = "fluvial.model_sha256"
Answer = TypeVar("Answer")
_PARAMS_A_CALL: Final = 100
_NOT_OF_MLFLOW: Final = re.compile(r"[^\w.\- /:]|(?<=/)[/.]|/$")
"""What a metric of MLflow may not be called with, and a task's number may."""


class MLflowRuns:
    """One task becomes one run of the experiment ``fluvial``: its parameters, and a step of its metrics a version.

    The run is found again by the task's genesis hash, and holds the last version that it was told of as a tag.
    """

    def __init__(self, address: str = "") -> None:
        """``address``: the server's, else MLFLOW_TRACKING_URI, else ``DEFAULT_SERVER``."""
        # MLflow's own defaults wait for minutes for a server that is not there.
        for variable, value in (
            (MLFLOW_HTTP_REQUEST_MAX_RETRIES, REQUEST_RETRIES),
            (MLFLOW_HTTP_REQUEST_TIMEOUT, REQUEST_TIMEOUT_S),
        ):
            if not variable.is_set():
                variable.set(value)
        known = mlflow.get_tracking_uri() if MLFLOW_TRACKING_URI.is_set() else DEFAULT_SERVER
        self._address = address or known
        self._client = MlflowClient(tracking_uri=self._address)
        self._run = ""

    def on_start(self, task: TrackedTask) -> int:
        """Find or make the task's run; the last version that it holds.

        Raises ConnectionProblem FLV-7060.
        """
        return self._asked(lambda: self._open(task))

    def on_version(self, version: TrackedVersion) -> None:
        """Log the version's metrics at the step of its number.

        Raises ConnectionProblem FLV-7060.
        """
        at_ms = version.timestamp_ms or int(time.time() * 1000)
        counted = {
            "updates": version.updates,
            "refused": version.refused,
            "staleness_mean": version.staleness_mean,
        }
        told = [
            Metric(_NOT_OF_MLFLOW.sub("_", name), float(value), at_ms, version.version)
            for name, value in version.metrics.items()
        ]
        told += [
            Metric(f"fluvial/{name}", float(value), at_ms, version.version) for name, value in counted.items()
        ]
        self._asked(lambda: self._log(version, told))

    def on_end(self) -> None:
        """The run is finished, until more is told."""
        self._asked(lambda: self._client.set_terminated(self._run, "FINISHED"))

    def _open(self, task: TrackedTask) -> int:
        client = self._client
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        # The filter is text, so the hash is one of our own making: hex digits only.
        found = client.search_runs([number], f"tags.`{GENESIS_TAG}` = '{task.genesis_sha256}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            return int(found[0].data.tags.get(VERSION_TAG, "0"))
        run = client.create_run(number, run_name=task.name, tags={GENESIS_TAG: task.genesis_sha256})
        self._run = run.info.run_id
        params = [Param(name, value) for name, value in task.parameters.items()]
        for first in range(0, len(params), _PARAMS_A_CALL):
            client.log_batch(self._run, params=params[first : first + _PARAMS_A_CALL])
        return 0

    def _log(self, version: TrackedVersion, told: list[Metric]) -> None:
        self._client.log_batch(self._run, metrics=told)
        # After the metrics: what is cut off between the two is told again, and never left out.
        self._client.set_tag(self._run, MODEL_TAG, version.model_sha256)
        self._client.set_tag(self._run, VERSION_TAG, str(version.version))

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except MlflowException as error:
            raise ConnectionProblem(
                "FLV-7060",
                f"MLflow does not take what it is told: {str(error).splitlines()[0]}",
                where=self._address,
                hint="see that the server runs (`mlflow server`), or name another: `--to mlflow=http://HOST:PORT`",
            ) from error
