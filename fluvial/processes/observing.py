"""Who watches one process: opened before its loops begin, closed after they have ended."""

from __future__ import annotations

import contextlib
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

from backends.logging_setup import describe_process
from backends.observer import Observer, Observers
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backends.settings import Settings
    from stream_apps.analysts.metric_records import MetricRecords

log = logging.getLogger("fluvial")


@contextlib.contextmanager
def observing(
    settings: Settings,
    identity: ProcessIdentity,
    metrics: MetricsOptions | None = None,
    *,
    say: Callable[[str], None] = log.info,
    warn: Callable[[str], None] = log.warning,
) -> Iterator[Observer]:
    """The observers of one process; ``say`` is told where its metrics are."""
    options = MetricsOptions() if metrics is None else metrics
    describe_process(task=identity.task, role=identity.role, process=identity.name, region=identity.region)
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = []
        if options.on:
            observers.append(stack.enter_context(serving(settings, identity, options, say=say, warn=warn)))
        if identity.role in {"worker", "merger"}:
            observers.append(stack.enter_context(_metric_records(settings, identity)))
        if settings.otlp_endpoint:
            observers.append(stack.enter_context(_tracing(settings, identity)))
        yield Observers(observers)


def _metric_records(settings: Settings, identity: ProcessIdentity) -> MetricRecords:
    """The records for analysts; FLV-7041 when the unit prices cannot be used."""
    from backends.kafka.writing import LogWriter
    from backends.prices import load_prices
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore
    from stream_apps.analysts.metric_records import MetricRecords, newest_version

    prices = load_prices()
    store = TaskStore(open_object_store(settings.store), identity.task)
    return MetricRecords(
        identity.task,
        prices,
        LogWriter(settings, f"fluvial-{identity.name}-metrics"),
        first=(lambda: newest_version(store)) if identity.role == "merger" else None,
    )


def _tracing(settings: Settings, identity: ProcessIdentity) -> contextlib.AbstractContextManager[Observer]:
    from backends.observing.tracing import tracing  # OpenTelemetry is loaded only where it is wanted

    resource = {
        "service.name": f"fluvial-{identity.role}",
        "service.instance.id": identity.name,
        "service.version": version("fluvial"),
        "fluvial.task": identity.task,
    }
    if identity.region:
        resource["fluvial.region"] = identity.region
    return tracing(settings.otlp_endpoint, settings.trace_ratio, resource)
