"""Fills a regional worker's metrics. Per record: plain fields, bound children, nothing that grows with devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from aggregation.codecs import CODECS
from aggregation.errors import FluvialError
from aggregation.fold.events import Event, Update, Verdict, WindowClosed
from aggregation.fold.rejections import ACCEPTED, CONTROL
from aggregation.fold.rejections import OUTCOMES as KNOWN_OUTCOMES
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import Headers, LogRecord
from backends.observing.metrics import Metrics
from backends.observing.partition import WatchedPartition
from backends.observing.process import OTHER, MetricsObserver, error_id
from schemas.refusals import Standing, standing_of

OUTCOMES: Final = frozenset(KNOWN_OUTCOMES)


class WorkerMetrics(MetricsObserver):
    """What a worker counts."""

    def __init__(self, metrics: Metrics, *, task: str, home: Path) -> None:
        super().__init__(metrics, task=task, home=home)
        self._partitions: dict[Slot, WatchedPartition] = {}
        self._assigned = False
        self._moving = threading.Lock()  # a scrape must not bring back what a move has removed
        self._verdicts: dict[tuple[str, str, bool], Any] = {}
        self._bytes: dict[tuple[str, str], Any] = {}

    def slots(self) -> tuple[Slot, ...]:
        """The partitions that this process has."""
        with self._moving:
            return tuple(self._partitions)

    def sampled(self, slot: Slot, end: int, now_s: float) -> None:
        """The partition's log ended there then."""
        with self._moving:
            if (one := self._partitions.get(slot)) is not None:
                one.lag.add(end, now_s)
                one.sampled = True

    # -- hooks

    def assigned(self, region: str, partitions: Collection[int]) -> None:
        """See ``Observer``."""
        with self._moving:
            for slot in [one for one in self._partitions if one[0] == region and one[1] not in partitions]:
                self._partitions.pop(slot).remove()
        self._assigned = True

    def resumed(self, slot: Slot, state: PartitionState) -> None:
        """See ``Observer``."""
        self._partition(slot).resumed(state)

    def unvouched(self, slot: Slot, verdicts: int) -> None:
        """See ``Observer``."""
        self._partition(slot).unvouched = verdicts

    def folding(self, slot: Slot, record: LogRecord) -> None:
        """See ``Observer``."""
        del record
        self._partition(slot).folding_since_s = time.perf_counter()

    def judged(self, slot: Slot, record: LogRecord, event: Event, verdict: Verdict) -> Headers:
        """See ``Observer``."""
        one = self._partition(slot)
        region = slot[0]
        outcome = verdict.outcome
        canary = standing_of(outcome, region, verdict.device_id) is Standing.CANARY
        key = (region, outcome, canary)
        counter = self._verdicts.get(key)
        if counter is None:
            counter = self._verdicts[key] = self._verdict_counter(region, outcome, canary=canary)
        counter.inc()
        now_s = time.time()
        self._success["verdict"] = now_s
        if canary:
            return ()
        one.verdict_seconds.observe(max(0.0, now_s - record.timestamp_ms / 1000))
        if isinstance(event, Update):
            self._observe_update(one, event, verdict)
        if outcome == ACCEPTED:
            one.published.add(record.timestamp_ms)
        if outcome != CONTROL and one.window_since_s is None:
            one.window_since_s = time.monotonic()
        return ()

    def folded(self, slot: Slot, record: LogRecord, state: PartitionState) -> None:
        """See ``Observer``."""
        one = self._partition(slot)
        one.state = state
        one.folded_at_ms = record.timestamp_ms
        one.folded.inc()
        since_s, one.folding_since_s = one.folding_since_s, None
        if since_s is not None:
            one.fold_seconds.observe(time.perf_counter() - since_s)

    def window_closed(self, slot: Slot, closed: WindowClosed, state: PartitionState) -> Headers:
        """See ``Observer``."""
        del state
        one = self._partition(slot)
        one.windows.inc()
        one.window_since_s = None
        one.closed_at_s[closed.sequence] = time.perf_counter()
        headers = one.published.headers()
        one.published.clear()
        return headers

    def window_published(self, slot: Slot, closed: WindowClosed, aggregate: Aggregate) -> None:
        """See ``Observer``."""
        del aggregate
        one = self._partition(slot)
        closed_at_s = one.closed_at_s.pop(closed.sequence, None)
        if closed_at_s is not None:
            one.publish_seconds.observe(time.perf_counter() - closed_at_s)
        one.snapshot_at_s = time.time()
        self.succeeded("window")

    def window_contradicted(self, slot: Slot, ours: Aggregate) -> None:
        """See ``Observer``."""
        del ours
        self.metrics.counter("fluvial_windows_contradicted_total").labels(slot[0]).inc()

    def stopped(self, slot: Slot, error: FluvialError) -> None:
        """See ``Observer``."""
        one = self._partition(slot)
        one.stopped = error_id(error)
        one.folding_since_s = None
        self.metrics.counter("fluvial_partition_stops_total").labels(slot[0], one.stopped).inc()

    # -- health

    def ready_problem(self) -> str:
        """See ``MetricsObserver``."""
        if not self._assigned:
            return "no partitions are assigned and resumed yet"
        with self._moving:
            stopped = [(slot, one.stopped) for slot, one in sorted(self._partitions.items()) if one.stopped]
        if stopped:
            return ", ".join(f"partition {slot[0]}[{slot[1]}] stopped: {why}" for slot, why in stopped)
        return super().ready_problem()

    def refresh(self) -> None:
        """See ``MetricsObserver``."""
        super().refresh()
        now_s = time.time()
        with self._moving:
            for one in self._partitions.values():
                one.refresh(now_s)

    # --

    def _partition(self, slot: Slot) -> WatchedPartition:
        one = self._partitions.get(slot)
        if one is None:
            with self._moving:
                one = self._partitions.setdefault(slot, WatchedPartition(self.metrics, slot))
        return one

    def _verdict_counter(self, region: str, outcome: str, *, canary: bool) -> Any:
        name = "fluvial_canary_verdicts_total" if canary else "fluvial_verdicts_total"
        return self.metrics.counter(name).labels(region, outcome if outcome in OUTCOMES else OTHER)

    def _observe_update(self, one: WatchedPartition, update: Update, verdict: Verdict) -> None:
        codec = update.codec if update.codec in CODECS else OTHER  # a device may write any name
        key = (one.slot[0], codec)
        sizes = self._bytes.get(key)
        if sizes is None:
            sizes = self.metrics.histogram("fluvial_update_bytes").labels(one.slot[0], codec)
            self._bytes[key] = sizes
        sizes.observe(update.record_bytes)
        if verdict.staleness >= 0:
            one.staleness.observe(verdict.staleness)
        if verdict.norm > 0.0:
            one.deviations.observe(verdict.norm_deviations)
