"""Serves one process' metrics: its options, its port, and the file by which Prometheus finds it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from aggregation.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.observing.endpoints import MetricsServer
    from backends.observing.lag import LagPoller
    from backends.observing.process import MetricsObserver
    from backends.settings import Settings
    from fluvial.processes.identity import ProcessIdentity

HOST: Final = "127.0.0.1"
PORT_MAX: Final = 65_535
REGION_LABEL: Final = "__fluvial_region"
"""Which region a process is of, for the console: Prometheus drops labels that begin so."""
_PID: Final = re.compile(r"[0-9]{1,9}")

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """What a command's options say: whether there are metrics, on which port (0: a free one), and an aim."""

    port: int = 0
    on: bool = True
    target: float | None = None


def metrics_options(function: _Function) -> _Function:
    """Add ``--metrics-port`` and ``--no-metrics``: the command gets ``metrics_port`` and ``no_metrics``."""
    off = click.option("--no-metrics", is_flag=True, help="Serve no metrics.")
    port = click.option(
        "--metrics-port",
        type=click.IntRange(0, PORT_MAX),
        default=0,
        show_default=True,
        help="Port of /metrics, /livez and /readyz on 127.0.0.1; 0: a free one, which is printed.",
    )
    return port(off(function))


def targets_folder(home: Path) -> Path:
    """Where every serving process has its file, in Prometheus' file_sd format."""
    return home / "run" / "metrics"


def remove_targets(home: Path) -> int:
    """Remove what killed processes have left there; how many."""
    left = sorted(targets_folder(home).glob("*.json"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def forget_target(home: Path, pid: int) -> None:
    """Remove the file of the process ``pid``, which has ended in whatever way and is not missed."""
    for path in targets_folder(home).glob(f"*.{pid}.json"):
        path.unlink(missing_ok=True)


def remove_stale_targets(home: Path, identity: ProcessIdentity) -> int:
    """Remove what killed processes of this name have left there; how many. One that still runs keeps its file."""
    import psutil

    removed = 0
    for path in targets_folder(home).glob("*.json"):
        stem, _, pid = path.stem.rpartition(".")
        if stem == _stem(identity) and _PID.fullmatch(pid) and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _stem(identity: ProcessIdentity) -> str:
    return f"{identity.task}-{identity.name}"


@contextlib.contextmanager
def serving(
    settings: Settings,
    identity: ProcessIdentity,
    options: MetricsOptions,
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Iterator[MetricsObserver]:
    """An observer whose metrics are served until the end. What goes wrong here is said, and never ends the process."""
    observer = _observer(settings, identity, options)
    with contextlib.ExitStack() as stack:
        server = _server(observer, options, warn)
        if server is not None:
            server.start()
            stack.callback(server.close)
            say(f"metrics of {identity.name}: http://{server.address}/metrics")
            stack.enter_context(_found_by_prometheus(settings.home, identity, server.address, warn))
        poller = _lag_poller(settings, identity, observer)
        if poller is not None:
            poller.start()
            stack.callback(poller.stop)
        yield observer


def _observer(settings: Settings, identity: ProcessIdentity, options: MetricsOptions) -> MetricsObserver:
    from cryptography import x509

    from backends.observing.metrics import Metrics
    from backends.observing.roles import BY_ROLE, EvaluatorMetrics

    metrics = Metrics(identity.role)
    observer = BY_ROLE[identity.role](metrics, task=identity.task, home=settings.home)
    metrics.register_standard()
    if identity.certificate:
        ends = x509.load_der_x509_certificate(identity.certificate).not_valid_after_utc
        metrics.gauge("fluvial_certificate_expires_timestamp_seconds").set(ends.timestamp())
    if isinstance(observer, EvaluatorMetrics) and options.target is not None:
        observer.aim(options.target)
    return observer


def _server(
    observer: MetricsObserver, options: MetricsOptions, warn: Callable[[str], None]
) -> MetricsServer | None:
    from backends.observing.endpoints import MetricsServer

    def bind(port: int) -> MetricsServer:
        return MetricsServer(
            observer.metrics.registry,
            live=observer.live_problem,
            ready=observer.ready_problem,
            host=HOST,
            port=port,
        )

    try:
        return bind(options.port)
    except OSError as error:
        problem = EnvironmentProblem(
            "FLV-7001",
            f"metrics cannot be served on port {options.port}: {error.strerror or error}",
            where=f"{HOST}:{options.port}",
            hint="the process goes on with a free port; choose another with `--metrics-port N`",
        )
        warn(str(problem))
    try:
        return bind(0)
    except OSError as error:
        problem = EnvironmentProblem(
            "FLV-7002",
            f"metrics cannot be served on any port: {error.strerror or error}",
            where=HOST,
            hint="the process goes on without; `--no-metrics` says that it should",
        )
        warn(str(problem))
        return None


@contextlib.contextmanager
def _found_by_prometheus(
    home: Path, identity: ProcessIdentity, address: str, warn: Callable[[str], None]
) -> Iterator[None]:
    # With the process id: two canaries of one region, or two auditors of a task, have one name.
    path = targets_folder(home) / f"{_stem(identity)}.{os.getpid()}.json"
    labels = {"task": identity.task, "role": identity.role, "process": identity.name}
    if identity.region:
        labels[REGION_LABEL] = identity.region
    text = json.dumps([{"targets": [address], "labels": labels}]) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # Prometheus reads *.json, and must not read half of one
        part.write_text(text)
        part.replace(path)
        remove_stale_targets(home, identity)
    except OSError as error:
        problem = EnvironmentProblem(
            "FLV-7003",
            f"the file by which Prometheus finds this process cannot be written: {error.strerror or error}",
            where=str(path),
            hint="metrics are served all the same; see the disk with `fluvial doctor`",
        )
        warn(str(problem))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it was never written, or ``fluvial down`` was quicker
            if path.read_text() == text:  # a successor under the same name has its own by now
                path.unlink()


def _lag_poller(settings: Settings, identity: ProcessIdentity, observer: MetricsObserver) -> LagPoller | None:
    from backends.kafka.reading import LogReader
    from backends.observing.lag import LagPoller
    from backends.observing.worker import WorkerMetrics
    from schemas.topics import updates_topic

    if not isinstance(observer, WorkerMetrics):
        return None
    return LagPoller(
        lambda: LogReader(settings, f"fluvial-{identity.name}-lag"),
        observer.slots,
        lambda region: updates_topic(identity.task, region),
        observer.sampled,
    )
