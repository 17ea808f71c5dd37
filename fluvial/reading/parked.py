"""Which records of a partition its workers folded as ``skipped``, from what is signed.

A worker's aggregate says how many records of its window were skipped, an operator's Skip says which one it means. So
whoever folds the log again agrees with the workers, though its own code may fold what theirs could not. Verdicts, which
nobody signs, are asked only where operators have named more records of a window than were skipped in it: a Skip of a
record that was folded after all changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aggregation.fold.events import Parked
from aggregation.fold.rejections import PARKED
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import RecordReader
from backends.skips import find_skips
from fluvial.reading.verdicts import read_verdicts
from schemas.certificates import Trust


@dataclass(slots=True)
class ParkedRecords:
    """What to fold in the place of parked records, by offset; and windows that count more than Skips account for."""

    by_offset: dict[int, Parked] = field(default_factory=dict)
    unfounded: list[tuple[Aggregate, int]] = field(default_factory=list)


def parked_in(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, windows: Iterable[Aggregate]
) -> ParkedRecords:
    """The parked records of published ``windows`` of one partition. Reads the log only if there are any.

    Raises IntegrityProblem FLV-6206 where verdicts are needed and cannot be read.
    """
    parked = ParkedRecords()
    counting = [window for window in windows if window.counts.get(PARKED)]
    if not counting:
        return parked
    first, end = min(one.first_offset for one in counting), max(one.next_offset for one in counting)
    named = find_skips(reader, trust, task, slot, first=first, end=end)
    for window in counting:
        count = window.counts[PARKED]
        here = {at: named[at] for at in named if window.first_offset <= at < window.next_offset}
        if len(here) > count:
            verdicts = read_verdicts(reader, task, slot, window.first_offset, window.next_offset)
            judged = {verdict.offset for verdict in verdicts if verdict.outcome == PARKED}
            here = {at: one for at, one in here.items() if at in judged}
        if len(here) < count:
            parked.unfounded.append((window, len(here)))
        parked.by_offset |= here
    return parked
