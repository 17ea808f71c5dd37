"""What a partition's own log gives for a window: folded again, where signed windows contradict each other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.fold.events import Parked
from aggregation.fold.rejections import PARKED
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from backends.outages import OUTAGES, UNREADABLE, retry_through_outage
from backends.skips import find_parking_skip, find_skips
from schemas.topics import updates_topic
from schemas.windows import EncodedWindow
from stream_apps.process_context import ProcessContext
from stream_apps.replaying import FoldRaised, PartitionReplay, resume_after, start_of_log

log = logging.getLogger("fluvial.merger")


class Refolding:
    """Folds partitions of one task again. What came of the log itself is remembered.

    ``_proven`` has the newest window of a partition that did, and ``_open`` where its log ended (exclusive) when it
    closed no window of that sequence or a later one.
    """

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._proven: dict[Slot, Aggregate] = {}
        self._open: dict[Slot, tuple[int, int]] = {}

    def window(
        self, slot: Slot, sequence: int, before: Aggregate | None, claimed: Collection[Aggregate]
    ) -> EncodedWindow | None:
        """The window that the log closes as ``sequence``; None where it closes no such one yet.

        It is folded from the state after ``before``, a window that nobody disputes; where none of those ``claimed``
        comes of that, from the newest window that came of the log itself, or from the beginning: then that state may be
        a lie. Waits for outages to end, and raises ``FoldRaised`` where a record cannot be folded and no operator has
        parked it.
        """
        end = self._end(slot)
        ended, still_open = self._open.get(slot, (-1, 0))
        parked = any(one.counts.get(PARKED) for one in claimed)
        if ended == end and sequence >= still_open and not parked:
            return None
        base = self._proven.get(slot)
        base = base if base is not None and base.sequence < sequence else None
        if before is not None and before != base:
            found = self._attempt(slot, sequence, before, claimed)
            if found is not None and found.aggregate in claimed:
                return self._kept(found)
            text = (
                "%s[%d]: no window %d that was signed follows from window %d: it is folded from further back"
            )
            log.warning(text, *slot, sequence, before.sequence)
        found = None if base is None else self._attempt(slot, sequence, base, claimed, prove=before)
        if base is None or (found is None and slot not in self._proven):
            found = self._given(slot, sequence, None, claimed, prove=before)
        if found is None:
            self._open[slot] = (end, sequence)
            return None
        self._proven[slot] = found.aggregate
        return self._kept(found)

    def _attempt(
        self,
        slot: Slot,
        sequence: int,
        start: Aggregate,
        claimed: Collection[Aggregate],
        prove: Aggregate | None = None,
    ) -> EncodedWindow | None:
        """The same from the state after ``start``; None too where there is no such state: then nothing is proven."""
        try:
            return self._given(slot, sequence, start, claimed, prove)
        except FoldRaised:
            raise
        except IntegrityProblem as problem:
            log.warning("%s[%d]: no state after window %d: %s", *slot, start.sequence, problem.message)
            if self._proven.get(slot) == start:
                del self._proven[slot]
            return None

    def _given(
        self,
        slot: Slot,
        sequence: int,
        before: Aggregate | None,
        claimed: Collection[Aggregate],
        prove: Aggregate | None = None,
    ) -> EncodedWindow | None:
        """What comes of the log as it stands or, where that is claimed, without what operators' Skips name.

        Where ``before`` is proven, so is ``prove`` if it comes of the log on the way.
        """
        proving = before is None or before == self._proven.get(slot)
        prove = prove if proving else None
        # Also the windows between may hold what was parked; of the window itself the claim says so.
        distant = before is None or (proving and before.sequence + 1 < sequence)
        found = self._folded(slot, sequence, before, {}, prove)
        if found is not None and found.aggregate in claimed:
            return found
        if distant or any(one.counts.get(PARKED) for one in claimed):
            skips = self._skips(slot, 0 if before is None else before.next_offset)
            other = self._folded(slot, sequence, before, skips, prove) if skips else None
            if other is not None and other.aggregate in claimed:
                return other
        return found

    def _skips(self, slot: Slot, first: int) -> dict[int, Parked]:
        context = self._context

        def find() -> dict[int, Parked]:
            with context.open_reader("skips") as reader:
                _, end = reader.bounds(updates_topic(context.genesis.task, slot[0]), slot[1])
                return find_skips(reader, context.trust, context.genesis.task, slot, first=first, end=end)

        return retry_through_outage("find the Skips of a log", find, clock=context.clock)

    def _folded(
        self,
        slot: Slot,
        sequence: int,
        before: Aggregate | None,
        parked: Mapping[int, Parked],
        prove: Aggregate | None,
    ) -> EncodedWindow | None:
        def fold() -> EncodedWindow | FoldRaised | None:
            try:
                return self._fold(slot, sequence, before, dict(parked), prove)
            except FoldRaised as raised:
                return raised  # a defect of ours does not pass by waiting

        what = f"fold {slot[0]}[{slot[1]}] again"
        while_raising = UNREADABLE if before is None else OUTAGES
        found = retry_through_outage(what, fold, while_raising, self._context.clock)
        if isinstance(found, FoldRaised):
            raise found
        return found

    def _kept(self, found: EncodedWindow) -> EncodedWindow:
        """What was folded here is stored here: its worker may have had no time to."""
        for data in found.objects.values():
            retry_through_outage(
                "store a window that was folded again",
                lambda data=data: self._context.store.put_object(data),  # type: ignore[misc]
                clock=self._context.clock,
            )
        return found

    def _fold(
        self,
        slot: Slot,
        sequence: int,
        before: Aggregate | None,
        parked: dict[int, Parked],
        prove: Aggregate | None,
    ) -> EncodedWindow | None:
        context = self._context
        with context.open_reader("refold") as reader:
            while True:
                state = self._state(slot, before)
                replay = PartitionReplay(state, context.trust, context.store, parked)
                topic = updates_topic(context.genesis.task, slot[0])
                _, end = reader.bounds(topic, slot[1])
                try:
                    for record in reader.read(topic, slot[1], state.next_offset, end):
                        encoded = replay.step(record).encoded
                        if encoded is not None and encoded.aggregate.sequence == sequence:
                            return encoded
                        if encoded is not None and encoded.aggregate == prove:
                            self._proven[slot] = encoded.aggregate
                except FoldRaised as raised:
                    skip = find_parking_skip(reader, context.trust, context.genesis.task, slot, raised.offset)
                    if skip is None or raised.offset in parked:
                        raise
                    parked[raised.offset] = skip
                    continue
                return None

    def _state(self, slot: Slot, before: Aggregate | None) -> PartitionState:
        if before is None:
            return start_of_log(self._context.genesis, slot)
        try:
            return resume_after(self._context.store, self._context.genesis, before)
        except UsageProblem as problem:  # it names a policy that is none: so the state is none
            raise IntegrityProblem(problem.error_id, problem.message) from problem

    def _end(self, slot: Slot) -> int:
        def end() -> int:
            with self._context.open_reader("refold") as reader:
                return reader.bounds(updates_topic(self._context.genesis.task, slot[0]), slot[1])[1]

        return retry_through_outage("see where a log ends", end, clock=self._context.clock)
