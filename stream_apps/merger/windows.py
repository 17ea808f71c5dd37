"""Taking windows: which have come, in sequence by partition, which wait, since when, and where their records stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aggregation.server.aggregates import PendingAggregates, Slot
from backends.log import LogRecord
from backends.outages import retry_through_outage
from schemas.topics import aggregates_topic
from stream_apps.process_context import ProcessContext
from stream_apps.published import read_aggregate

log = logging.getLogger("fluvial.merger")


class Windows:
    """The windows that no version holds yet. ``waiting_since_s``: since when updates wait; None while none does."""

    def __init__(self, context: ProcessContext, cursors: Mapping[Slot, int]) -> None:
        self._context = context
        self._task = context.genesis.task
        self._next_offsets: dict[Slot, int] = dict.fromkeys(context.genesis.slots, 0)
        self._log_offsets: dict[tuple[Slot, int], int] = {}
        self.pending = PendingAggregates(cursors)
        self.waiting_since_s: float | None = None

    @property
    def next_offsets(self) -> dict[Slot, int]:
        """Where to go on reading each partition of the aggregates topics."""
        return dict(self._next_offsets)

    def resume_from_facts(self, version: int) -> None:
        """Go on reading where the facts of ``version`` say, as far as the logs reach; else from the beginning."""
        clock, store = self._context.clock, self._context.store
        facts = retry_through_outage("read the head's facts", lambda: store.facts(version), clock=clock)
        advised = _advice_in(facts)
        self._next_offsets |= retry_through_outage(
            "see where the windows begin", lambda: self._still_there(advised), clock=clock
        )

    def write_facts(self, version: int) -> None:
        """Advice for whoever starts next: where in the aggregates topics the windows begin that no version holds."""
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
        if record.offset >= expected:
            self._take(record, slot)

    def forget_merged(self, cursors: Mapping[Slot, int]) -> None:
        """Forget what a version with these cursors holds."""
        self.pending.advance(cursors)
        self._log_offsets = {
            (slot, sequence): offset
            for (slot, sequence), offset in self._log_offsets.items()
            if sequence >= cursors[slot]
        }

    def wait_anew(self) -> None:
        """What is left waits from now on: the head has moved."""
        self.waiting_since_s = self._context.clock.monotonic() if self.pending.updates else None

    def _take_missing(self, slot: Slot, end: int) -> None:
        topic = aggregates_topic(self._task, slot[0])
        with self._context.open_reader("missing") as reader:
            for missing in reader.read(topic, slot[1], self._next_offsets[slot], end):
                self._take(missing, slot)

    def _take(self, record: LogRecord, slot: Slot) -> None:
        self._next_offsets[slot] = record.offset + 1
        aggregate = read_aggregate(record, self._context.trust, self._task, slot[0], log)
        if aggregate is None:
            return
        if self.pending.offer(aggregate):
            self._log_offsets[(slot, aggregate.sequence)] = record.offset
            self._context.observer.window_taken(record, aggregate)
            if self.waiting_since_s is None and self.pending.updates:
                self.waiting_since_s = self._context.clock.monotonic()

    def _still_there(self, advised: Mapping[Slot, int]) -> dict[Slot, int]:
        """Advice that points beyond the end of its log (it was restored from a copy, say) is no advice."""
        verified = {}
        with self._context.open_reader("bounds") as reader:
            for slot in sorted(advised.keys() & self._next_offsets.keys()):
                _, end = reader.bounds(aggregates_topic(self._task, slot[0]), slot[1])
                verified[slot] = advised[slot] if advised[slot] <= end else 0
        return verified


def _advice_in(facts: Mapping[str, object]) -> dict[Slot, int]:
    offsets = facts.get("aggregate_offsets")
    if not isinstance(offsets, dict):
        return {}
    return {
        (region, int(partition)): int(at) for region, row in offsets.items() for partition, at in row.items()
    }
