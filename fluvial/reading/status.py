"""What runs, how far it is, what lags: read from the logs, the store and the consumer groups, changing nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.server.aggregates import Slot
from backends.kafka.consumer_groups import Group, describe_groups
from fluvial.reading.evaluations import Evaluated, evaluated_of
from fluvial.reading.quality import Quality, quality_of
from fluvial.reading.replay import read_aggregates
from fluvial.reading.task_view import TaskView
from fluvial.reading.verdicts import decoded
from schemas.manifests import Manifest
from schemas.refusals import Judged, judged_of
from schemas.task_metric import ACCURACY
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

TREND_SAMPLE_S: Final = 1.0
VERSIONS_COUNTED_MAX: Final = 20
EVALUATIONS_SHOWN: Final = 5
CURVE_VERSIONS_MAX: Final = 100
_TAIL_RECORDS: Final = 8


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition. ``folded_to`` is one past the last offset with a verdict; ``windows_waiting`` are not merged yet.

    ``lag_s`` is the age of the oldest record without a verdict, 0.0 when there is none. ``trend`` compares two looks,
    a second apart: falling, steady or rising; "none" when nothing lags.
    """

    slot: Slot
    log_end: int
    folded_to: int
    windows: int
    windows_waiting: int
    lag_s: float
    trend: str = "none"

    @property
    def lag_records(self) -> int:
        """Records without a verdict."""
        return max(0, self.log_end - self.folded_to)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "region": self.slot[0],
            "partition": self.slot[1],
            "log_end": self.log_end,
            "folded_to": self.folded_to,
            "lag_records": self.lag_records,
            "lag_seconds": round(self.lag_s, 3),
            "trend": self.trend,
            "windows": self.windows,
            "windows_waiting": self.windows_waiting,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """A task at one moment. ``age_s`` is None for a version without facts.

    ``quality`` is of the newest evaluated versions, ``curve`` its metric in the last ``CURVE_VERSIONS_MAX``, ascending.
    """

    view: TaskView
    head: int
    manifest: Manifest | None
    age_s: float | None
    quality: Quality
    curve: tuple[tuple[int, float], ...]
    refused_share: float | None
    versions_counted: int
    groups: tuple[Group, ...]
    partitions: tuple[PartitionStatus, ...]
    evaluated: Evaluated = field(default_factory=Evaluated)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        manifest = self.manifest
        return {
            "task": self.view.task,
            "genesis_sha256": self.view.file.genesis_sha256,
            "stack": {
                "kafka": self.view.settings.bootstrap_servers,
                "store": self.view.settings.store.kind,
                "store_url": self.view.settings.store.url,
            },
            "head": {
                "version": self.head,
                "model_sha256": manifest.model_sha256 if manifest else self.view.genesis.model_sha256,
                "accepted": manifest.accepted if manifest else 0,
                "age_seconds": None if self.age_s is None else round(self.age_s, 3),
            },
            "metric": self.quality.document(),
            "curve": [
                {"version": version, "value": value} for version, value in self.curve[-EVALUATIONS_SHOWN:]
            ],
            ACCURACY: [
                {"version": version, ACCURACY: value}
                for version, value in self.quality.curve(ACCURACY)[-EVALUATIONS_SHOWN:]
            ],
            "evaluator": self.evaluated.document(self.head),
            "refused_share": self.refused_share,
            "refused_share_versions": self.versions_counted,
            "groups": [
                {
                    "group": group.name,
                    "state": group.state,
                    "members": [
                        {
                            "name": one.called,
                            "client_id": one.client_id,
                            "host": one.host,
                            "partitions": list(one.partitions),
                        }
                        for one in group.members
                    ],
                }
                for group in self.groups
            ],
            "partitions": [partition.document() for partition in self.partitions],
        }


def read_status(view: TaskView) -> Status:
    """Look once, and a second time where something lags, to see which way it goes."""
    head = view.head()
    manifest = view.objects.manifest(head) if head else None
    partitions = _partitions(view, manifest)
    if any(one.lag_records for one in partitions):
        time.sleep(TREND_SAMPLE_S)
        partitions = tuple(
            _with_trend(before, now)
            for before, now in zip(partitions, _partitions(view, manifest), strict=True)
        )
    told = view.told()
    quality = quality_of(view.genesis.metric, told.evaluations)
    share, counted = _refused_share(view, head, told.canaries)
    groups = describe_groups(
        view.settings, [f"fluvial-{view.task}-{region}" for region in view.genesis.partitions]
    )
    return Status(
        view=view,
        head=head,
        manifest=manifest,
        age_s=_age_s(view, head),
        quality=quality,
        curve=tuple(quality.curve()[-CURVE_VERSIONS_MAX:]),
        refused_share=share,
        versions_counted=counted,
        groups=tuple(groups),
        partitions=partitions,
        evaluated=evaluated_of(told.evaluations),
    )


def created_at_ms(view: TaskView, version: int) -> int | None:
    """When a version was committed, as its merger noted it; None where it did not."""
    return view.objects.created_at_ms(version)


def _age_s(view: TaskView, version: int) -> float | None:
    created = created_at_ms(view, version)
    return None if created is None else max(0.0, time.time() - created / 1000)


def _refused_share(view: TaskView, head: int, canaries: Mapping[int, int]) -> tuple[float | None, int]:
    """The refused share of all updates in the newest versions, and how many versions that are.

    Canaries are left out where the version's record says how many there were.
    """
    versions = range(max(1, head - VERSIONS_COUNTED_MAX + 1), head + 1)
    counted = [judged_of(view.objects.manifest(one).counts, canaries.get(one, 0)) for one in versions]
    total = Judged(sum(one.accepted for one in counted), sum(one.refused for one in counted))
    return total.refused_share, len(versions)


def _partitions(view: TaskView, manifest: Manifest | None) -> tuple[PartitionStatus, ...]:
    cursors = manifest.slot_cursors if manifest else dict.fromkeys(view.genesis.slots, 0)
    return tuple(_partition(view, slot, cursors[slot]) for slot in view.genesis.slots)


def _partition(view: TaskView, slot: Slot, merged: int) -> PartitionStatus:
    region, number = slot
    updates = updates_topic(view.task, region)
    windows, sealed_to = _sealed(view, slot)
    folded_to = max(sealed_to, _verdicts_to(view, slot))
    _, end = view.reader.bounds(updates, number)
    lag_s = 0.0
    if folded_to < end:
        oldest = next(view.reader.read(updates, number, folded_to, folded_to + 1))
        lag_s = max(0.0, time.time() - oldest.timestamp_ms / 1000)
    return PartitionStatus(slot, end, folded_to, windows, max(0, windows - merged), lag_s)


def _sealed(view: TaskView, slot: Slot) -> tuple[int, int]:
    """(windows published, one past the last offset in them), from the tail of the aggregates topic."""
    low, high = view.reader.bounds(aggregates_topic(view.task, slot[0]), slot[1])
    tail = read_aggregates(
        view.reader, view.trust, view.task, slot, start=max(low, high - _TAIL_RECORDS), end=high
    )
    found = [one.aggregate for one in tail if one.aggregate is not None]
    newest = max(found, key=lambda one: one.sequence, default=None)
    return (0, 0) if newest is None else (newest.sequence + 1, newest.next_offset)


def _verdicts_to(view: TaskView, slot: Slot) -> int:
    """One past the highest offset with a verdict, from the tail of the verdicts topic."""
    topic = verdicts_topic(view.task, slot[0])
    low, high = view.reader.bounds(topic, slot[1])
    tail = view.reader.read(topic, slot[1], max(low, high - _TAIL_RECORDS), high)
    return max((decoded(one.value, f"{topic}[{slot[1]}]@{one.offset}").offset + 1 for one in tail), default=0)


def _with_trend(before: PartitionStatus, now: PartitionStatus) -> PartitionStatus:
    if not before.lag_records and not now.lag_records:
        return now
    if now.lag_records == before.lag_records:
        trend = "steady"
    else:
        trend = "falling" if now.lag_records < before.lag_records else "rising"
    return PartitionStatus(
        now.slot, now.log_end, now.folded_to, now.windows, now.windows_waiting, now.lag_s, trend
    )
