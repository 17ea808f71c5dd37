"""One partition's fold: its state, and all that a record needs before it can be folded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from aggregation.fold.events import Barrier, Effect, Event
from aggregation.fold.state import PartitionState
from aggregation.fold.transition import fold_into
from backends.log import LogRecord
from backends.outages import UNREADABLE
from schemas.records import decode_record
from stream_apps.worker.delivery import RecentRecords, records_through
from stream_apps.worker.parking import Parking
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.resuming import first_state, load_policy


class Folding:
    """From records to effects. Nothing here writes.

    ``offset`` is that of the record which is being folded, or was last: where a fold that raises leaves
    ``state.next_offset`` is not known.
    """

    def __init__(self, place: PartitionPlace) -> None:
        self.state = first_state(place)
        self.offset = 0
        self._place = place
        self._recent = RecentRecords()
        self._parking = Parking(place)

    # -- where to begin

    def begin_again(self) -> None:
        """From offset 0, until somebody knows better."""
        self.state = first_state(self._place)
        self._recent.clear()

    def go_on_from(self, state: PartitionState) -> None:
        """Fold from here on."""
        self.state = state
        self._parking.forget_before(state.next_offset)

    # -- which records

    def require_same(self, record: LogRecord) -> None:
        """IntegrityProblem FLV-3204 if the log was rewritten under this worker."""
        self._recent.require_same(record, str(self._place))

    def records_through(self, record: LogRecord) -> AsyncIterator[LogRecord]:
        """``record``, and before it what was lost on the way to us."""
        start = min(self.state.next_offset, record.offset)
        return records_through(self._place, start, record, self.state)

    # -- one record

    def event_at_once(self, record: LogRecord, published: bytes | None) -> Event | None:
        """``event_in`` of nearly every record; None where something has to be waited for."""
        self.offset = record.offset
        if published is not None or self._parking.has(record.offset):
            return None
        event = self._decoded(record)
        return None if isinstance(event, Barrier) and self.state.applies(event) else event

    async def event_in(self, record: LogRecord, published: bytes | None) -> Event:
        """What to fold at the record's offset, where the verdict ``published`` stands on it already or none.

        With an operator's Skip in its place, decoded and authenticated otherwise, and with the objects loaded that a
        barrier names.
        """
        self.offset = record.offset
        event: Event = await self._parking.parked(record.offset, published) or self._decoded(record)
        if isinstance(event, Barrier) and self.state.applies(event):
            event = await self._loaded(event)
        return event

    def _decoded(self, record: LogRecord) -> Event:
        return decode_record(record.value, record.timestamp_ms, self._place.context.trust, self.state.policy)

    def fold(self, record: LogRecord, event: Event) -> tuple[Effect, ...]:
        """Change the state; its effects have yet to be made true. Whatever the fold raises."""
        self._recent.add(record)
        return fold_into(self.state, record.offset, event)

    async def _loaded(self, barrier: Barrier) -> Barrier:
        place, state = self._place, self.state

        def load() -> Barrier:
            store = place.context.store
            reference = store.reference(barrier.reference_sha256, place.context.layout)
            policy = load_policy(place, barrier.policy_sha256, state)
            guide = store.guide(barrier.guide_sha256, place.context.layout, place.context.trust)
            return replace(barrier, policy=policy, reference=reference, guide=guide)

        return await place.retry(f"load what {place} needs for version {barrier.version}", load, UNREADABLE)

    # -- after the fold has raised

    def raised(self) -> None:
        """The fold raised at ``offset``, and an operator may park that record."""
        self._parking.begin_search(self.offset, self.state.revoked)

    async def parked_by(self, record: LogRecord) -> bool:
        """Whether an operator's Skip, in this record or in one since the fold raised, parks what it raised at."""
        start = self._parking.unsearched_from(record)
        if start is None:
            return False
        records = records_through(self._place, start, record, self.state)
        return await self._parking.search(self.offset, records, self.state)
