"""Fills a process' metrics from what its loops tell: what all roles have in common, and the answers about health."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any, Final

from aggregation.errors import FluvialError
from backends.observer import Observer
from backends.observing.metrics import ACTIONS, TOPIC_KINDS, Metrics

BEAT_S_MAX: Final = 30.0
"""A loop that has turned once and not for so long has stopped: nothing that it waits for keeps it from turning."""

OTHER: Final = "other"
_ERROR_ID: Final = re.compile(r"FLV-\d{4}")


def error_id(error: BaseException) -> str:
    """The label of an error: its id, of which our own code has a closed set."""
    found = getattr(error, "error_id", "")
    return found if isinstance(found, str) and _ERROR_ID.fullmatch(found) else OTHER


class MetricsObserver(Observer):
    """What every process counts. A role's own observer overrides the hooks of its loop."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        self.metrics = metrics
        self._home = home
        self._topic_prefix = f"fl.{task}."
        self._success: dict[str, float] = {}
        self._beat_s: float | None = None
        self._ending = False
        self._produce: dict[str, Any] = {}
        self._store: dict[str, Any] = {}
        metrics.refresh = self.refresh

    # -- hooks of every process

    def beat(self) -> None:
        """See ``Observer``."""
        self._beat_s = time.monotonic()

    def ending(self) -> None:
        """See ``Observer``."""
        self._ending = True

    def produced(self, topic: str, seconds: float, error: FluvialError | None, records: int = 1) -> None:
        """See ``Observer``."""
        child = self._produce.get(topic)
        if child is None:
            child = self.metrics.histogram("fluvial_kafka_produce_seconds").labels(self._kind(topic))
            self._produce[topic] = child
        child.observe_together(seconds, records)
        if error is None:
            self.succeeded("kafka")
        else:
            errors = self.metrics.counter("fluvial_kafka_errors_total")
            errors.labels(self._kind(topic), error_id(error)).inc()

    def stored(self, operation: str, seconds: float, error: FluvialError | None) -> None:
        """See ``Observer``."""
        child = self._store.get(operation)
        if child is None:
            child = self.metrics.histogram("fluvial_store_operation_seconds").labels(operation)
            self._store[operation] = child
        child.observe(seconds)
        if error is None:
            self.succeeded("store")
        else:
            self.metrics.counter("fluvial_store_errors_total").labels(operation, error_id(error)).inc()

    # -- health

    def live_problem(self) -> str:
        """Why this process should be restarted, or "".

        Only what a restart mends. A fold that hangs blocks the loop and stops its beats; a record that waits for a
        store which is away does not, and must not end the process.
        """
        beat_s = self._beat_s
        if beat_s is not None and time.monotonic() - beat_s > BEAT_S_MAX:
            return f"the loop has not turned for {time.monotonic() - beat_s:.0f} s"
        return ""

    def ready_problem(self) -> str:
        """Why this process does not do its work now, or ""."""
        return "ending: what is under way is finished" if self._ending else ""

    # -- for roles

    def succeeded(self, action: str) -> None:
        """An action of ``ACTIONS`` succeeded just now."""
        self._success[action] = time.time()

    def refresh(self) -> None:
        """Fill what is known at scrape time only."""
        gauge = self.metrics.gauge
        gauge("fluvial_ready").set(0.0 if self.ready_problem() else 1.0)
        for action in ACTIONS:
            if action in self._success:
                gauge("fluvial_last_success_timestamp_seconds").labels(action).set(self._success[action])
        usage = shutil.disk_usage(self._home)
        gauge("fluvial_disk_free_bytes").set(usage.free)
        gauge("fluvial_disk_size_bytes").set(usage.total)

    def _kind(self, topic: str) -> str:
        kind = topic.removeprefix(self._topic_prefix).partition(".")[0]
        return kind if kind in TOPIC_KINDS else OTHER
