"""Records for analysts: what the loops did, as flat JSON in ``fl.<task>.metrics``.

::

    hooks (any thread, never waiting) ─▶ bounded queue ─▶ one thread ─▶ fl.<task>.metrics

Nothing here may hold the pipeline up: where the queue is full, or the broker away, records are dropped, counted, and
said once. What a worker writes follows from the log alone, and stands in the topic after the window that it tells of;
so after a crash a record may come twice, with the same content, and the first by its key counts (docs/analysts.md).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, Self

from aggregation.errors import FluvialError
from aggregation.fold.events import Barrier, Event, Update, Verdict, WindowClosed
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import Headers, LogRecord, Position, RecordWriter
from backends.observer import Observer
from backends.prices import Prices
from backends.store.task_store import TaskStore
from schemas.manifests import Manifest
from schemas.metrics import SCHEMA_VERSION, encode_metric
from schemas.objects import sha256_hex
from schemas.refusals import judged_of
from schemas.topics import metrics_topic
from stream_apps.analysts.canary_header import pack, unpack, without_canaries
from stream_apps.analysts.window_facts import WindowFacts

QUEUE_RECORDS_MAX: Final = 10_000
UNACKNOWLEDGED_MAX: Final = 10_000
WINDOWS_REMEMBERED_MAX: Final = 16_384
"""Windows whose canaries are remembered until a version holds them; beyond that the oldest are forgotten."""
WAKE_S: Final = 0.1
CLOSE_S: Final = 3.0
_BARRIERS_MAX: Final = 1024

log = logging.getLogger("fluvial.metrics")

Record = dict[str, Any]


class MetricRecords(Observer):
    """Writes ``version``, ``window`` and ``region_minute`` records. A context: it sends what waits before it ends.

    ``first`` is called once in the sending thread and gives a record to begin with, or None.
    """

    def __init__(
        self,
        task: str,
        prices: Prices,
        writer: RecordWriter,
        *,
        first: Callable[[], Record | None] | None = None,
        queue_records_max: int = QUEUE_RECORDS_MAX,
    ) -> None:
        self.task = task
        self.dropped = 0
        self._prices = prices
        self._writer = writer
        self._first = first
        self._queue: queue.Queue[Record] = queue.Queue(queue_records_max)
        self._unacknowledged = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, name="metric records", daemon=True)
        self._open: dict[Slot, WindowFacts] = {}
        self._closed: dict[tuple[Slot, int], list[Record]] = {}
        self._version_at_ms = 0
        self._barriers: dict[Slot, dict[int, int]] = {}
        self._canaries: dict[tuple[Slot, int], Mapping[str, int]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(2 * CLOSE_S)

    # -- regional worker

    def resumed(self, slot: Slot, state: PartitionState) -> None:
        """Whatever closed before is published by now, by this worker or by another one."""
        del state
        for key in [key for key in tuple(self._closed) if key[0] == slot]:
            self._closed.pop(key, None)

    def assigned(self, region: str, partitions: Collection[int]) -> None:
        """Forget the partitions that others have now."""
        for slot in [slot for slot in self._open if slot[0] == region and slot[1] not in partitions]:
            del self._open[slot]
            self._barriers.pop(slot, None)

    def judged(self, slot: Slot, record: LogRecord, event: Event, verdict: Verdict) -> Headers:
        """Count a record into its window and minute."""
        facts = self._open.get(slot)
        if facts is None or facts.next_offset != record.offset:
            facts = self._open[slot] = WindowFacts(slot, record.offset)
        barriers = self._barriers.setdefault(slot, {})
        if isinstance(event, Barrier):
            barriers.setdefault(event.version, record.timestamp_ms)
            while len(barriers) > _BARRIERS_MAX:
                del barriers[min(barriers)]
        if isinstance(event, Update):
            facts.add(record, verdict, barriers.get(event.base_version), event.cohort)
        else:
            facts.add(record, verdict, None)
        return ()

    def window_closed(self, slot: Slot, closed: WindowClosed, state: PartitionState) -> Headers:
        """Put the window's records together; they wait until it is published."""
        facts = self._open.pop(slot, None)
        if facts is None or facts.first_offset != closed.first_offset:
            return ()  # this process did not see all of it, as when a partition went and came back: no half truths
        records = [facts.window(closed), *facts.minutes(closed, state.layout, self._prices)]
        self._closed[slot, closed.sequence] = records
        return pack(facts.canaries)

    def window_published(self, slot: Slot, closed: WindowClosed, aggregate: Aggregate) -> None:
        """Send what is known of a window."""
        del aggregate
        for record in self._closed.pop((slot, closed.sequence), ()):
            self.emit(record)

    def stopped(self, slot: Slot, error: FluvialError) -> None:
        """What a stopped partition had closed is folded again when it goes on."""
        del error
        self._open.pop(slot, None)

    # -- merger

    def window_taken(self, record: LogRecord, aggregate: Aggregate) -> None:
        """Remember what its worker says of the canary, until a version holds the window."""
        canaries = unpack(record.headers, aggregate.counts)
        if canaries is not None:
            self._canaries[aggregate.slot, aggregate.sequence] = canaries
            if len(self._canaries) > WINDOWS_REMEMBERED_MAX:
                del self._canaries[next(iter(self._canaries))]

    def committed(self, manifest: Manifest, chosen: Collection[Aggregate], stored_bytes: int) -> Headers:
        """Send a version."""
        told = [self._canaries.pop((one.slot, one.sequence), None) for one in chosen]
        known = [one for one in told if one is not None]
        canaries = sum(map(Counter, known), Counter[str]()) if len(known) == len(told) else None
        now_ms = round(time.time() * 1000)
        before_ms, self._version_at_ms = self._version_at_ms, now_ms
        seconds = (now_ms - before_ms) / 1000 if before_ms else None
        self.emit(version_record(manifest, now_ms, seconds, stored_bytes, canaries))
        return ()

    # -- sending

    def emit(self, record: Mapping[str, Any]) -> None:
        """Hand over a record; it is dropped when too many wait."""
        whole = {"schema_version": SCHEMA_VERSION, "task": self.task, **record}
        try:
            self._queue.put_nowait(whole)
        except queue.Full:
            self._drop("more of them wait than are sent")

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            log.warning("records of %s are dropped: %s; said once", metrics_topic(self.task), why)

    def _send(self) -> None:
        try:
            if self._first is not None:
                self._send_first(self._first)
            while not (self._ended.is_set() and self._queue.empty()):
                try:
                    self._append(self._queue.get(timeout=WAKE_S))
                except queue.Empty:
                    self._writer.poll()
            self._writer.flush(CLOSE_S)
        except FluvialError as error:
            log.warning("records of %s are not written any more: %s", metrics_topic(self.task), error)
        if self.dropped:
            log.warning("%d records of %s were dropped", self.dropped, metrics_topic(self.task))

    def _send_first(self, first: Callable[[], Record | None]) -> None:
        try:
            record = first()
        except FluvialError as error:
            log.warning("the newest version is not told again: %s", error)
            return
        if record is not None:
            self._version_at_ms = self._version_at_ms or int(record["at_ms"])
            self.emit(record)

    def _append(self, record: Record) -> None:
        if self._unacknowledged >= UNACKNOWLEDGED_MAX:
            self._writer.poll()
            if self._unacknowledged >= UNACKNOWLEDGED_MAX:
                self._drop("the broker does not take them")
                return
        self._unacknowledged += 1  # changed by this thread alone: it runs the callbacks, too
        future = self._writer.append(
            metrics_topic(self.task), encode_metric(record), key=self.task.encode(), partition=0
        )
        future.add_done_callback(self._answered)

    def _answered(self, future: Future[Position]) -> None:
        self._unacknowledged -= 1
        error = future.exception()
        if error is not None:
            self._drop(str(error))


def version_record(
    manifest: Manifest,
    at_ms: int,
    seconds: float | None,
    stored_bytes: int | None,
    canaries: Mapping[str, int] | None,
) -> Record:
    """One version as a record: from its manifest, but for ``at_ms``, ``seconds``, ``stored_bytes`` and ``canaries``.

    ``canaries`` are the canaries' refusals by outcome, which are left out; None where not known: then they are in.
    """
    counts = without_canaries(manifest.counts, canaries or {})
    refused = judged_of(counts).refused
    slots = {(one.region, one.partition) for one in manifest.inputs if one.accepted and one.weight}
    partitions = sum(len(row) for row in manifest.cursors.values())
    return {
        "kind": "version",
        "at_ms": at_ms,
        "version": manifest.version,
        "reason": manifest.reason,
        "accepted": manifest.accepted,
        "refused": refused,
        "canaries": None if canaries is None else sum(canaries.values()),
        "accept_ratio": manifest.accepted / max(1, manifest.accepted + refused),
        "windows": len(manifest.inputs),
        "regions": len({region for region, _ in slots}),
        "participation": len(slots) / max(1, partitions),
        "weight_total": manifest.weight_total / 65536,
        "staleness_mean": manifest.staleness_total / max(1, manifest.accepted),
        "staleness_max": manifest.staleness_max,
        "update_bytes": manifest.update_bytes,
        "stored_bytes": stored_bytes,
        "seconds": seconds,
        "model_sha256": manifest.model_sha256,
        "optimizer_sha256": manifest.optimizer_sha256,
        "manifest_sha256": sha256_hex(manifest.canonical()),
        "parent_sha256": manifest.parent_sha256,
        "policy_sha256": manifest.policy_sha256,
    } | {f"verdicts_{outcome}": count for outcome, count in counts.items()}


def newest_version(store: TaskStore) -> Record | None:
    """The newest version's record, for a merger that starts: the one before it may have died before it told of it."""
    head = store.head()
    if head is None or head.version == 0:
        return None
    at_ms = store.created_at_ms(head.version) or round(time.time() * 1000)
    return version_record(store.manifest(head.version), at_ms, None, None, None)
