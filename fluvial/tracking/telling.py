"""Telling trackers of a task's versions: those that are there, then those that come."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from fluvial.tracking.tracker import TrackedTask, TrackedVersion
from schemas.objects import sha256_hex
from schemas.task_metric import RESERVED, way_of
from schemas.topics import metrics_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from backends.log import LogRecord
    from fluvial.reading.task_view import TaskView
    from fluvial.tracking.tracker import Tracker

LEFT_OUT: Final = RESERVED - {"fairness_gap", "seconds"}
"""Numbers of an evaluation record that are no metrics of the task; counts by outcome neither."""
_COUNTS: Final = "verdicts_"


def tell(
    view: TaskView,
    trackers: Mapping[str, Tracker],
    *,
    follow: bool,
    on_told: Callable[[TrackedVersion], None] = lambda _version: None,
    ended: Callable[[], bool] = lambda: False,
) -> int:
    """Tell every tracker of every version, in order, and return the last version that was told.

    A version is told with its metrics as soon as it, or a later one, is evaluated. Without ``follow``, and once
    ``ended`` says so, the versions that are left are told, evaluated or not. Raises what a tracker raises.
    """
    telling = _Telling(view, trackers, on_told)
    try:
        for record in _records(view, follow=follow, ended=ended):
            if record is not None:
                telling.take(record)
            else:
                telling.tell_up_to(max(telling.evaluations, default=0))
        telling.tell_up_to(view.head())
    finally:
        for tracker in trackers.values():
            getattr(tracker, "on_end", lambda: None)()
    return telling.told


class _Telling:
    """What has been read and told so far."""

    def __init__(
        self, view: TaskView, trackers: Mapping[str, Tracker], on_told: Callable[[TrackedVersion], None]
    ) -> None:
        task = tracked_task(view)
        self.evaluations: dict[int, dict[str, Any]] = {}
        self._view = view
        self._known = [(tracker, _started(tracker, task)) for tracker in trackers.values()]
        self._on_told = on_told
        self.told = min((known for _, known in self._known), default=0)

    def take(self, record: LogRecord) -> None:
        """Keep the first evaluation of a version; anybody may write there, so what is none tells nothing."""
        value = record.value or b""
        if b'"evaluation"' not in value:
            return
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            return
        version = document.get("version") if isinstance(document, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or document.get("kind") != "evaluation":
            return
        if version > self.told:
            self.evaluations.setdefault(version, document | {"at_ms": record.timestamp_ms})

    def tell_up_to(self, last: int) -> None:
        """Tell of the versions after the last that was told."""
        for version in range(self.told + 1, min(last, self._view.head()) + 1):
            one = _tracked(self._view, version, self.evaluations.pop(version, {}))
            for tracker, known in self._known:
                if version > known:
                    tracker.on_version(one)
            self._on_told(one)
            self.told = version


def tracked_task(view: TaskView) -> TrackedTask:
    """What a tracker is told of the task itself."""
    parameters = {"regions": ",".join(f"{name}:{n}" for name, n in view.genesis.partitions.items())}
    parameters |= _flat(json.loads(view.genesis.first_policy.canonical()), "policy.")
    if (metric := view.genesis.metric) is not None:
        parameters |= {"metric": metric.name, "better": way_of(metric)}
    parameters["parameters"] = str(view.genesis.tensor_layout.model_parameters)
    return TrackedTask(view.task, sha256_hex(view.genesis.canonical()), parameters)


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an evaluation record that are the task's own."""
    return {
        name: float(value)
        for name, value in evaluation.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and name not in LEFT_OUT
        and not name.startswith(_COUNTS)
    }


def _started(tracker: Tracker, task: TrackedTask) -> int:
    start = getattr(tracker, "on_start", None)
    return int(start(task) or 0) if callable(start) else 0


def _records(view: TaskView, *, follow: bool, ended: Callable[[], bool]) -> Iterator[LogRecord | None]:
    """The metrics topic from its beginning; None where what there is has been read."""
    topic = metrics_topic(view.task)
    low, high = view.reader.bounds(topic, 0)
    yield from view.reader.read(topic, 0, low, high)
    yield None
    if not follow:
        return
    for record in view.reader.follow({(topic, 0): high}):
        yield record
        if record is None and ended():
            return


def _tracked(view: TaskView, version: int, evaluation: Mapping[str, Any]) -> TrackedVersion:
    data = view.objects.manifest_bytes(version)
    manifest = view.objects.manifest(version)
    records = sum(manifest.counts.values())
    return TrackedVersion(
        version=version,
        metrics=metrics_of(evaluation),
        updates=manifest.accepted,
        refused=max(0, records - manifest.accepted - manifest.dropped - manifest.counts.get("control", 0)),
        staleness_mean=manifest.staleness_total / max(1, manifest.accepted),
        model_sha256=manifest.model_sha256,
        manifest_sha256=sha256_hex(data),
        timestamp_ms=int(evaluation.get("at_ms", 0)),
    )


def _flat(document: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
