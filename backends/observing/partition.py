"""What a worker's metrics remember of one partition between records and scrapes."""

from __future__ import annotations

import time
from typing import Final

from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Slot
from backends.observing.lag import LagTable
from backends.observing.metrics import Metrics
from backends.observing.times_header import PublishTimes

GAUGES: Final = (
    "fluvial_next_offset",
    "fluvial_log_end_offset",
    "fluvial_lag_records",
    "fluvial_lag_seconds",
    "fluvial_partition_version",
    "fluvial_window_fill_ratio",
    "fluvial_window_age_seconds",
    "fluvial_snapshot_timestamp_seconds",
    "fluvial_partition_stopped",
    "fluvial_unvouched_verdicts",
    "fluvial_devices_active",
    "fluvial_devices_contributing",
)
"""What goes when the partition moves to another process."""


class WatchedPartition:
    """Plain fields for the fold to write, gauges for a scrape to fill from them."""

    def __init__(self, metrics: Metrics, slot: Slot) -> None:
        region, partition = slot
        self.slot = slot
        self.state: PartitionState | None = None
        self.published = PublishTimes()
        self.lag = LagTable()
        self.sampled = False
        self.folded_at_ms: int | None = None
        self.folding_since_s: float | None = None
        self.window_since_s: float | None = None
        self.closed_at_s: dict[int, float] = {}
        self.snapshot_at_s: float | None = None
        self.stopped: str = ""
        self.unvouched = 0
        self._metrics = metrics
        self._labels = (region, str(partition))
        self.verdict_seconds = metrics.histogram("fluvial_verdict_seconds").labels(region)
        self.fold_seconds = metrics.histogram("fluvial_fold_seconds").labels(region)
        self.staleness = metrics.histogram("fluvial_update_staleness_versions").labels(region)
        self.deviations = metrics.histogram("fluvial_update_norm_deviations").labels(region)
        self.publish_seconds = metrics.histogram("fluvial_window_publish_seconds").labels(region)
        self.folded = metrics.counter("fluvial_records_folded_total").labels(*self._labels)
        self.windows = metrics.counter("fluvial_windows_total").labels(*self._labels)

    def resumed(self, state: PartitionState) -> None:
        """It goes on from a state; what stopped it may be mended."""
        self.state = state
        self.folding_since_s = None
        self.stopped = ""
        if not state.window.accepted:
            self.published.clear()
        if not state.window.records:
            self.window_since_s = None

    def refresh(self, now_s: float) -> None:
        """Fill the gauges."""
        self._set("fluvial_partition_stopped", float(bool(self.stopped)))
        self._set("fluvial_unvouched_verdicts", self.unvouched)
        if self.snapshot_at_s is not None:
            self._set("fluvial_snapshot_timestamp_seconds", self.snapshot_at_s)
        state = self.state
        if state is None:
            return
        window_since_s = self.window_since_s
        self._set("fluvial_next_offset", state.next_offset)
        self._set("fluvial_partition_version", state.version)
        self._set("fluvial_window_fill_ratio", state.window.accepted / state.policy.window.updates_max)
        age_s = 0.0 if window_since_s is None else max(0.0, time.monotonic() - window_since_s)
        self._set("fluvial_window_age_seconds", age_s)
        self._count_devices(state)
        if self.sampled:
            folded_at_s = None if self.folded_at_ms is None else self.folded_at_ms / 1000
            records, seconds = self.lag.lag(state.next_offset, now_s, folded_at_s)
            # The sample may be older than the last record folded: the log ends at or after that.
            self._set("fluvial_log_end_offset", max(self.lag.end, state.next_offset))
            self._set("fluvial_lag_records", records)
            self._set("fluvial_lag_seconds", seconds)

    def _count_devices(self, state: PartitionState) -> None:
        counted = state.counted.copy()  # one step for the interpreter: the fold goes on meanwhile
        active: set[str] = set().union(*counted.values())
        newest = counted.get(state.version - 1) or next(
            (counted[version] for version in sorted(counted, reverse=True) if counted[version]), ()
        )
        self._set("fluvial_devices_active", len(active))
        self._set("fluvial_devices_contributing", len(newest))

    def remove(self) -> None:
        """The partition is another process' now."""
        for name in GAUGES:
            self._metrics.gauge(name).remove(*self._labels)

    def _set(self, name: str, value: float) -> None:
        self._metrics.gauge(name).labels(*self._labels).set(value)
