"""Which of a partition's records operators have parked, by signed Skips that stand behind them in the same log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from aggregation.fold.events import Parked
from aggregation.fold.rejections import PARKED
from aggregation.fold.state import PartitionState
from backends.log import LogRecord
from backends.skips import find_skips, skipped_by
from schemas.verdicts import decode_verdict
from stream_apps.worker.place import PartitionPlace

log = logging.getLogger("fluvial.worker")


class Parking:
    """The parked records of one partition that have yet to be folded as such, and the search for a Skip.

    A Skip alone parks nothing: only a record that the fold raises at, or that another worker has parked, is left out.
    """

    def __init__(self, place: PartitionPlace) -> None:
        self._place = place
        self._parked: dict[int, Parked] = {}
        self._searched_through = -1
        self._named: dict[int, Parked] | None = None

    def has(self, offset: int) -> bool:
        """Whether the record at ``offset`` is known to be parked."""
        return offset in self._parked

    def forget_before(self, next_offset: int) -> None:
        """What lies before ``next_offset`` is folded, and which verdicts stand is learnt anew."""
        self._named = None
        self._parked = {at: one for at, one in self._parked.items() if at >= next_offset}

    def begin_search(self, offset: int) -> None:
        """The fold raised at ``offset``: a Skip of it stands behind it."""
        self._searched_through = offset

    def unsearched_from(self, record: LogRecord) -> int | None:
        """Where to go on searching so that ``record`` is searched too; None where it has been already."""
        if record.offset <= self._searched_through:
            return None
        start, self._searched_through = self._searched_through + 1, record.offset
        return start

    async def search(self, offset: int, records: AsyncIterator[LogRecord], state: PartitionState) -> bool:
        """Whether one of ``records`` is an operator's Skip of ``offset``: then that is parked."""
        place = self._place
        async for one in records:
            parked = skipped_by(one, place.context.trust, place.task, place.slot, offset)
            if parked is not None:
                log.warning(
                    "%s: offset %d is parked by the Skip at offset %d",
                    place,
                    offset,
                    one.offset,
                    extra=place.fields(offset, state),
                )
                self._parked[offset] = parked
                return True
        return False

    async def parked(self, offset: int, published: bytes | None) -> Parked | None:
        """What to fold in the place of the record at ``offset``; None where that itself is to be folded.

        ``published`` is the verdict that stands on it: where another worker has parked it, code without the defect
        has to agree.
        """
        if (
            offset not in self._parked
            and published is not None
            and decode_verdict(published).outcome == PARKED
        ):
            named = await self._skips_from(offset)
            if offset in named:  # else the verdict was planted
                self._parked[offset] = named[offset]
        return self._parked.get(offset)

    async def _skips_from(self, offset: int) -> dict[int, Parked]:
        """What Skips name from ``offset`` on: read once, for all verdicts that stand were written before."""
        if self._named is None:
            place = self._place

            def find() -> dict[int, Parked]:
                with place.open_reader("skip") as reader:
                    _, end = reader.bounds(place.updates, place.partition)
                    trust = place.context.trust
                    return find_skips(reader, trust, place.task, place.slot, first=offset, end=end)

            self._named = await place.retry(f"find the Skips from offset {offset} on of {place}", find)
        return self._named
