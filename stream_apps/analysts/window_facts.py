"""What one worker saw of one window: the content of its ``window`` and ``region_minute`` records. Pure.

A minute that several windows share comes in as many pieces, one a window: so a worker that folds again after a crash
writes the same pieces again. Pieces of a minute are added up, each (region, partition, sequence, minute_ms) once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from aggregation.fold.events import Verdict, WindowClosed
from aggregation.fold.rejections import ACCEPTED, AGGREGATED, CONTROL
from aggregation.layout import Layout
from aggregation.server.aggregates import Slot
from aggregation.weights.staleness import WEIGHT_ONE
from backends.log import LogRecord
from backends.prices import GIB, Prices
from schemas.refusals import Standing, judged_of, standing_of
from stream_apps.analysts.canary_header import without_canaries

MINUTE_MS: Final = 60_000
DEVICES_COUNTED_MAX: Final = 100_000
"""Distinct devices are counted up to this many a window: beyond, ``devices`` stays there."""
MINUTES_MAX: Final = 1440
PARAMETER_BYTES: Final = 4
SUM_BYTES: Final = 8
MS_AN_HOUR: Final = 3_600_000


@dataclass(slots=True)
class Cohort:
    """What the accepted updates of one minute bring whose devices say that they are of one cohort."""

    accepted: int = 0
    bytes_up: int = 0
    device_ms: int = 0
    contributing: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Minute:
    """One minute of one window. ``canaries`` are in no other number. ``cohorts`` are as many as a device can say."""

    counts: Counter[str] = field(default_factory=Counter)
    canaries: int = 0
    bytes_up: int = 0
    devices: set[str] = field(default_factory=set)
    contributing: set[str] = field(default_factory=set)
    device_ms: int = 0
    device_updates: int = 0
    cohorts: dict[int, Cohort] = field(default_factory=dict)

    def add(
        self, record: LogRecord, verdict: Verdict, since_ms: int | None, cohort: int | None, *, canary: bool
    ) -> None:
        """Count one record that is no control record."""
        if canary:
            self.canaries += 1
            return
        self.counts[verdict.outcome] += 1
        self.bytes_up += len(record.value or b"")
        if verdict.device_id and verdict.outcome != AGGREGATED and len(self.devices) < DEVICES_COUNTED_MAX:
            self.devices.add(verdict.device_id)
        if verdict.outcome == ACCEPTED:
            self.contributing.add(verdict.device_id)
            device_ms = 0
            if since_ms is not None:
                device_ms = max(0, record.timestamp_ms - since_ms)
                self.device_ms += device_ms
                self.device_updates += 1
            if cohort is not None:
                one = self.cohorts.get(cohort)
                if one is None:
                    one = self.cohorts[cohort] = Cohort()
                one.accepted += 1
                one.bytes_up += len(record.value or b"")
                one.device_ms += device_ms
                one.contributing.add(verdict.device_id)


class WindowFacts:
    """A window while it fills. Bounded by the policy's updates a window, a day's minutes and the devices counted.

    ``canaries`` are the refusals of the region's canary so far, by outcome.
    """

    def __init__(self, slot: Slot, first_offset: int) -> None:
        self.slot = slot
        self.first_offset = first_offset
        self.next_offset = first_offset
        self._first_ms = 0
        self._last_ms = 0
        self._minutes: dict[int, Minute] = {}
        self._norms: list[float] = []
        self._cosines: list[float] = []
        self._deviations: list[float] = []
        self._clipped = 0
        self.canaries: Counter[str] = Counter()

    def add(
        self, record: LogRecord, verdict: Verdict, since_ms: int | None, cohort: int | None = None
    ) -> None:
        """Count one record. ``since_ms`` is when its base version came to this partition, where that is known.

        ``cohort`` is what its device says of itself; it counts where the update was accepted.
        """
        self.next_offset = record.offset + 1
        self._first_ms = self._first_ms or record.timestamp_ms
        self._last_ms = record.timestamp_ms
        if verdict.outcome == CONTROL:
            return
        start_ms = record.timestamp_ms // MINUTE_MS * MINUTE_MS
        if len(self._minutes) >= MINUTES_MAX and start_ms not in self._minutes:
            start_ms = max(self._minutes)
        accepted = verdict.outcome == ACCEPTED
        canary = standing_of(verdict.outcome, self.slot[0], verdict.device_id) is Standing.CANARY
        minute = self._minutes.get(start_ms)
        if minute is None:
            minute = self._minutes[start_ms] = Minute()
        minute.add(record, verdict, since_ms, cohort, canary=canary)
        if canary:
            self.canaries[verdict.outcome] += 1
        if accepted:
            self._norms.append(verdict.norm)
            self._cosines.append(verdict.cosine)
            self._deviations.append(verdict.norm_deviations)
            self._clipped += verdict.clip < 1.0

    def window(self, closed: WindowClosed) -> dict[str, Any]:
        """The ``window`` record."""
        counted = list(self._minutes.values())
        counts = without_canaries(closed.counts, self.canaries)
        devices = set().union(*(minute.devices for minute in counted))
        contributing = set().union(*(minute.contributing for minute in counted))
        return {
            "kind": "window",
            "at_ms": self._last_ms,
            "region": self.slot[0],
            "partition": self.slot[1],
            "sequence": closed.sequence,
            "first_offset": closed.first_offset,
            "next_offset": closed.next_offset,
            "version": closed.version,
            "accepted": closed.accepted,
            "refused": judged_of(counts).refused,
            "canaries": self.canaries.total(),
            "devices": len(devices),
            "devices_contributing": len(contributing),
            "participation": len(contributing) / len(devices) if devices else None,
            "weight_total": closed.weight_total / WEIGHT_ONE,
            "staleness_mean": closed.staleness_total / closed.accepted if closed.accepted else None,
            "staleness_max": closed.staleness_max,
            "update_bytes": closed.update_bytes,
            "fill_seconds": (self._last_ms - self._first_ms) / 1000,
            "clipped": self._clipped,
            **_percentiles("norm", self._norms),
            **_percentiles("cosine", self._cosines),
            **_percentiles("norm_deviations", self._deviations),
            "policy_sha256": closed.policy_sha256,
        } | {f"verdicts_{outcome}": count for outcome, count in sorted(counts.items())}

    def minutes(self, closed: WindowClosed, layout: Layout, prices: Prices) -> list[dict[str, Any]]:
        """The ``region_minute`` records, ascending."""
        records = []
        for start_ms in sorted(self._minutes):
            last = start_ms == max(self._minutes)
            elements = layout.sum_elements_of(max(1, len(closed.buckets or ())))
            sum_bytes = SUM_BYTES * elements if closed.accepted and last else 0
            records.append(self._minute(start_ms, closed.sequence, layout.parameters, sum_bytes, prices))
        return records

    def _minute(
        self, start_ms: int, sequence: int, parameters: int, sum_bytes: int, prices: Prices
    ) -> dict[str, Any]:
        minute = self._minutes[start_ms]
        records, (accepted, refused) = sum(minute.counts.values()), judged_of(minute.counts)
        bytes_down = PARAMETER_BYTES * parameters * len(minute.contributing)
        storage_bytes = minute.bytes_up + sum_bytes
        costs = _costs(prices, minute.bytes_up, bytes_down, minute.device_ms, storage_bytes)
        facts = {
            "kind": "region_minute",
            "at_ms": start_ms + MINUTE_MS,
            "minute_ms": start_ms,
            "region": self.slot[0],
            "partition": self.slot[1],
            "sequence": sequence,
            "records": records,
            "accepted": accepted,
            "refused": refused,
            "canaries": minute.canaries,
            "devices": len(minute.devices),
            "devices_contributing": len(minute.contributing),
            "bytes_up": minute.bytes_up,
            "bytes_down": bytes_down,
            "storage_bytes": storage_bytes,
            "device_seconds": minute.device_ms / 1000,
            "device_seconds_updates": minute.device_updates,
            "currency": prices.currency,
            **costs,
            "cost_total": sum(costs.values()),
        }
        facts |= {f"verdicts_{outcome}": count for outcome, count in sorted(minute.counts.items()) if count}
        for cohort, one in sorted(minute.cohorts.items()):
            facts |= _of_cohort(cohort, one, parameters, prices)
        return facts


def _of_cohort(cohort: int, one: Cohort, parameters: int, prices: Prices) -> dict[str, Any]:
    bytes_down = PARAMETER_BYTES * parameters * len(one.contributing)
    # The window's sum is nobody's: what a cohort stores is what the log keeps of it.
    costs = _costs(prices, one.bytes_up, bytes_down, one.device_ms, one.bytes_up)
    return {
        f"cohort_{cohort}_accepted": one.accepted,
        f"cohort_{cohort}_bytes_up": one.bytes_up,
        f"cohort_{cohort}_bytes_down": bytes_down,
        f"cohort_{cohort}_device_seconds": one.device_ms / 1000,
        f"cohort_{cohort}_cost_total": sum(costs.values()),
    }


def _costs(
    prices: Prices, bytes_up: int, bytes_down: int, device_ms: int, storage_bytes: int
) -> dict[str, float]:
    return {
        "cost_up": bytes_up / GIB * prices.up_per_gib,
        "cost_down": bytes_down / GIB * prices.down_per_gib,
        "cost_devices": device_ms / MS_AN_HOUR * prices.device_hour,
        "cost_storage_month": storage_bytes / GIB * prices.storage_per_gib_month,
    }


def _percentiles(name: str, values: list[float]) -> dict[str, float | None]:
    if not values:
        return {f"{name}_p{percent}": None for percent in (10, 50, 90)}
    found = np.percentile(np.asarray(values, dtype=np.float64), (10, 50, 90))
    return {f"{name}_p{percent}": float(value) for percent, value in zip((10, 50, 90), found, strict=True)}
