"""Taking windows: which have come, in sequence by partition, which wait, since when, and where their records stand."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from aggregation.server.aggregates import PendingAggregates, Slot
from aggregation.server.lateness import ON_TIME, Lateness
from backends.log import LogRecord
from backends.outages import retry_through_outage
from schemas.topics import aggregates_topic
from stream_apps.merger.judging import Judging
from stream_apps.process_context import ProcessContext
from stream_apps.published import read_claim

DROPPED_S: Final = 30.0
"""So long after a window was passed over for what may pass it is looked at again."""

log = logging.getLogger("fluvial.merger")


class Windows:
    """The windows that no version holds yet. ``waiting_since_s``: since when updates wait; None while none does.

    ``lateness`` is that of the next version: what is too late for it waits for nothing.
    """

    def __init__(self, context: ProcessContext, cursors: Mapping[Slot, int]) -> None:
        self._context = context
        self._task = context.genesis.task
        self._next_offsets: dict[Slot, int] = dict.fromkeys(context.genesis.slots, 0)
        self._first_offsets: dict[Slot, int] = dict(self._next_offsets)
        self._log_offsets: dict[tuple[Slot, int], int] = {}
        self.pending = PendingAggregates(cursors)
        self.judging = Judging(context, self.pending)
        self.waiting_since_s: float | None = None
        self.lateness: Lateness = ON_TIME

    @property
    def updates(self) -> int:
        """Accepted updates that wait and count."""
        return self.lateness.updates_of(self.pending.waiting())

    @property
    def next_offsets(self) -> dict[Slot, int]:
        """Where to go on reading each partition of the aggregates topics."""
        return dict(self._next_offsets)

    def begin_at(self, cursors: Mapping[Slot, int]) -> None:
        """Go on behind a version with these cursors.

        A partition's windows are published in sequence, so that of sequence n stands at offset n or later: reading
        begins at the cursor itself, and nobody's advice can make it begin too late.
        """
        self.forget_merged(cursors)
        self._first_offsets = retry_through_outage(
            "see where the windows begin", lambda: self._first_of(cursors), clock=self._context.clock
        )
        self._next_offsets = dict(self._first_offsets)

    def write_facts(self, version: int) -> None:
        """For whoever looks: when, by whom, and where the windows stand that no version holds. Nobody goes by it."""
        first = dict(self._next_offsets)
        for (slot, _), offset in self._log_offsets.items():
            first[slot] = min(first[slot], offset)
        offsets: dict[str, dict[str, int]] = {}
        for (region, partition), offset in first.items():
            offsets.setdefault(region, {})[str(partition)] = offset
        facts: dict[str, object] = {
            "created_at_ms": round(self._context.clock.time() * 1000),
            "merger": self._context.name,
            "aggregate_offsets": offsets,
        }
        retry_through_outage(
            "write the version's facts",
            lambda: self._context.store.put_facts(version, facts),
            clock=self._context.clock,
        )

    def offer(self, record: LogRecord, region: str) -> None:
        """Take one record of an aggregates topic, or first the ones before it that the framework has lost."""
        slot = (region, record.partition)
        expected = self._next_offsets[slot]
        if record.offset > expected:
            retry_through_outage(
                "read the windows that were missed",
                lambda: self._take_missing(slot, record.offset),
                clock=self._context.clock,
            )
        if record.offset >= self._next_offsets[slot]:
            self._next_offsets[slot] = record.offset + 1
            self._take(record, slot)
        if self._first_offsets[slot] and self.pending.waits_for_earlier(slot):
            retry_through_outage(
                "read the windows before those that came",
                lambda: self._take_from_the_beginning(slot),
                clock=self._context.clock,
            )

    def take_missing(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        """Read on to the end of their logs for the windows (region, partition, sequence) that have not come yet."""
        missing = {
            (region, partition) for region, partition, at in wanted if not self._has((region, partition), at)
        }
        for slot in sorted(missing):
            retry_through_outage(
                "read the windows that a version names",
                lambda slot=slot: self._take_missing(slot, None),  # type: ignore[misc]
                clock=self._context.clock,
            )

    def take_dropped(self) -> None:
        """Offer what was passed over ``DROPPED_S`` ago or earlier again: the reason may have passed."""
        now_s = self._context.clock.monotonic()
        for slot, since_s in sorted(self.judging.dropped.items()):
            if now_s - since_s >= DROPPED_S:
                del self.judging.dropped[slot]
                retry_through_outage(
                    "read the windows that were passed over",
                    lambda slot=slot: self._take_dropped(slot),  # type: ignore[misc]
                    clock=self._context.clock,
                )

    def forget_merged(self, cursors: Mapping[Slot, int]) -> None:
        """Forget what a version with these cursors holds."""
        self.pending.advance(cursors)
        self.judging.forget_merged(cursors)
        self._log_offsets = {
            (slot, sequence): offset
            for (slot, sequence), offset in self._log_offsets.items()
            if sequence >= cursors[slot]
        }

    def wait_anew(self) -> None:
        """What is left waits from now on: the head has moved."""
        self.waiting_since_s = self._context.clock.monotonic() if self.updates else None

    def _has(self, slot: Slot, sequence: int) -> bool:
        return self.pending.window(slot, sequence) is not None

    def _take_missing(self, slot: Slot, end: int | None) -> None:
        topic = aggregates_topic(self._task, slot[0])
        with self._context.open_reader("missing") as reader:
            end = reader.bounds(topic, slot[1])[1] if end is None else end
            for missing in reader.read(topic, slot[1], self._next_offsets[slot], end):
                self._next_offsets[slot] = missing.offset + 1
                self._take(missing, slot)

    def _take_from_the_beginning(self, slot: Slot) -> None:
        """What stands before the first offset: in a topic that was made anew a window may stand earlier."""
        end = self._first_offsets[slot]
        topic = aggregates_topic(self._task, slot[0])
        with self._context.open_reader("missing") as reader:
            for earlier in reader.read(topic, slot[1], reader.bounds(topic, slot[1])[0], end):
                self._take(earlier, slot)
        self._first_offsets[slot] = 0  # now, for an outage within begins the reading again

    def _take_dropped(self, slot: Slot) -> None:
        """What no version holds yet, once more: that of sequence n stands at offset n or later."""
        end, cursor = self._next_offsets[slot], self.pending.cursor(slot)
        topic = aggregates_topic(self._task, slot[0])
        with self._context.open_reader("dropped") as reader:
            low = reader.bounds(topic, slot[1])[0]
            for record in reader.read(topic, slot[1], max(low, cursor if cursor <= end else 0), end):
                self._take(record, slot)

    def _take(self, record: LogRecord, slot: Slot) -> None:
        claim = read_claim(record, self._context.trust, self._task, slot[0], log)
        if claim is None:
            return
        if self.judging.take(claim):
            self._log_offsets[claim.place] = record.offset
            self._context.observer.window_taken(record, claim.aggregate)
        if self.waiting_since_s is None and self.updates:
            self.waiting_since_s = self._context.clock.monotonic()

    def _first_of(self, cursors: Mapping[Slot, int]) -> dict[Slot, int]:
        """Where reading begins, by slot. Beyond the end of a log that is shorter than it was, it begins at 0."""
        first = {}
        with self._context.open_reader("bounds") as reader:
            for slot, cursor in sorted(cursors.items()):
                _, end = reader.bounds(aggregates_topic(self._task, slot[0]), slot[1])
                first[slot] = cursor if cursor <= end else 0
        return first
