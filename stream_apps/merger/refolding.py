"""What a partition's own log gives for a window: folded again, where signed windows contradict each other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from aggregation.errors import IntegrityProblem
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
    """Folds partitions of one task again. What was folded from the beginning of a log is remembered by its hash."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._proven: dict[Slot, tuple[int, str]] = {}

    def window(
        self, slot: Slot, sequence: int, before: Aggregate | None, claimed: Collection[Aggregate]
    ) -> EncodedWindow | None:
        """The window that the log closes as ``sequence``; None where it closes no such one yet.

        It is folded from the state after ``before``, a window that nobody disputes; where none of those ``claimed``
        comes of that, from the beginning: then that state may be a lie itself. Waits for outages to end, and raises
        ``FoldRaised`` where a record cannot be folded and no operator has parked it.
        """
        if before is not None:
            proven = self._proven.get(slot) == (before.sequence, before.sha256)
            try:
                found = self._given(slot, sequence, before, claimed)
            except FoldRaised:
                raise
            except IntegrityProblem as problem:
                log.warning("%s[%d]: no state after window %d: %s", *slot, before.sequence, problem.message)
            else:
                if proven or (found is not None and found.aggregate in claimed):
                    return self._kept(slot, found, proven=proven)
            text = "%s[%d] is folded from its beginning: no window %d that was signed follows from window %d"
            log.warning(text, *slot, sequence, before.sequence)
        return self._kept(slot, self._given(slot, sequence, None, claimed), proven=True)

    def _given(
        self, slot: Slot, sequence: int, before: Aggregate | None, claimed: Collection[Aggregate]
    ) -> EncodedWindow | None:
        """What comes of the log as it stands or, where that is claimed, without what operators' Skips name."""
        found = self._folded(slot, sequence, before, {})
        if found is not None and found.aggregate in claimed:
            return found
        if before is None or any(one.counts.get(PARKED) for one in claimed):
            skips = self._skips(slot, 0 if before is None else before.next_offset)
            other = self._folded(slot, sequence, before, skips) if skips else None
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
        self, slot: Slot, sequence: int, before: Aggregate | None, parked: Mapping[int, Parked]
    ) -> EncodedWindow | None:
        def fold() -> EncodedWindow | FoldRaised | None:
            try:
                return self._fold(slot, sequence, before, dict(parked))
            except FoldRaised as raised:
                return raised  # a defect of ours does not pass by waiting

        what = f"fold {slot[0]}[{slot[1]}] again"
        while_raising = UNREADABLE if before is None else OUTAGES
        found = retry_through_outage(what, fold, while_raising, self._context.clock)
        if isinstance(found, FoldRaised):
            raise found
        return found

    def _kept(self, slot: Slot, found: EncodedWindow | None, *, proven: bool) -> EncodedWindow | None:
        """What was folded here is stored here: its worker may have had no time to."""
        if found is None:
            return None
        if proven:
            self._proven[slot] = (found.aggregate.sequence, found.aggregate.sha256)
        for data in found.objects.values():
            retry_through_outage(
                "store a window that was folded again",
                lambda data=data: self._context.store.put_object(data),  # type: ignore[misc]
                clock=self._context.clock,
            )
        return found

    def _fold(
        self, slot: Slot, sequence: int, before: Aggregate | None, parked: dict[int, Parked]
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
        return resume_after(self._context.store, self._context.genesis, before)
