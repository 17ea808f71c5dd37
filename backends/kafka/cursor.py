"""Where a reader stands in its partitions: what it fetches next, and that what came is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from aggregation.errors import IntegrityProblem
from backends.kafka.batches import DamagedBatchError, GapError, next_offset
from backends.kafka.fetching import Fetched, Place
from backends.kafka.stretches import Stretch, stretches_in

FETCH_BYTES_FIRST: Final = 256 << 10
FETCH_BYTES_MAX: Final = 4 << 20
"""Bytes a partition and fetch, of the first and of later ones. A larger batch comes whole all the same."""
DAMAGED_FETCHES_MAX: Final = 3
"""What came damaged is fetched so often: it may have been damaged on the way here."""


BARREN_FETCHES_MAX: Final = 10
"""So many fetches in a row may bring bytes that hold nothing of what was asked for."""
FRUITLESS_BACKOFF_S: Final = 0.05
"""Before what brought nothing that could be read is fetched again."""


class Whole(NamedTuple):
    """What a fetch brought of a partition, looked through: the offsets from ``start`` to ``end`` - 1."""

    place: Place
    data: bytes
    start: int
    end: int

    def stretches(self) -> Iterator[Stretch]:
        """Its records."""
        return stretches_in(self.data, self.start, self.end, checked=False)


class Cursor:
    """The next offset of each partition, up to ``end`` if there is one.

    ``bytes_max`` grows from fetch to fetch: who wants one record need not wait for many.
    """

    def __init__(self, starts: Mapping[Place, int], end: int | None) -> None:
        self._offsets = dict(starts)
        self._end = end
        self._damaged: Counter[Place] = Counter()
        self._barren: Counter[Place] = Counter()
        self.bytes_max = FETCH_BYTES_FIRST

    @property
    def is_endless(self) -> bool:
        """Whether it goes on for ever."""
        return self._end is None

    def wanted(self) -> dict[Place, int]:
        """From where on to fetch what; nothing where the end is reached."""
        return {
            place: offset
            for place, offset in self._offsets.items()
            if self._end is None or offset < self._end
        }

    def advance(self, answer: Mapping[Place, Fetched]) -> list[Whole]:
        """Go on behind what came. FLV-3107 where it is damaged time and again, FLV-3001 where an offset is left out."""
        if answer:
            self.bytes_max = min(4 * self.bytes_max, FETCH_BYTES_MAX)
        came = []
        for place, (data, watermark) in answer.items():
            start = self._offsets[place]
            high = watermark if self._end is None else min(watermark, self._end)
            try:
                following = next_offset(data, start, high)
            except DamagedBatchError as error:
                self._damaged[place] += 1
                if self._damaged[place] >= DAMAGED_FETCHES_MAX:
                    raise damaged(place, error) from error
                continue
            except GapError as error:
                raise gap(place, error) from error
            del self._offsets[place]  # to the end of the queue: others get their turn
            self._offsets[place] = following
            self._damaged.pop(place, None)
            if following == start:
                self._require_more(place, start)
                continue
            self._barren.pop(place, None)
            came.append(Whole(place, data, start, following))
        return came

    def _require_more(self, place: Place, start: int) -> None:
        self._barren[place] += 1
        if self._barren[place] >= BARREN_FETCHES_MAX:
            raise barren(place, start, self._barren[place])


def barren(place: Place, start: int, fetches: int) -> IntegrityProblem:
    """FLV-3107: the broker sends bytes, and no batch in them covers the offset that was asked for."""
    return IntegrityProblem(
        "FLV-3107",
        f"the log is damaged: {fetches} fetches from offset {start} brought no batch that holds it",
        where=f"{place[0]}[{place[1]}]",
        hint="look at the broker's disk, and bring the partition back from another replica or a backup",
    )


def damaged(place: Place, error: DamagedBatchError) -> IntegrityProblem:
    """FLV-3107: what the broker has of a partition is not what was written."""
    return IntegrityProblem(
        "FLV-3107",
        f"the log is damaged: {error}",
        where=f"{place[0]}[{place[1]}]",
        hint="no producer can write this, so look at the broker's disk, and bring the partition back from another "
        "replica or a backup",
    )


def gap(place: Place, error: GapError) -> IntegrityProblem:
    """FLV-3001: records are missing in the middle."""
    return IntegrityProblem(
        "FLV-3001",
        f"gap in the log: {error}",
        where=f"{place[0]}[{place[1]}]",
        hint="only compaction takes records out of the middle: set the topic's cleanup.policy to `delete`, then "
        "restore the records",
    )
