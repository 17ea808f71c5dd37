"""Which records of a partition its workers folded as ``skipped``, from what is signed.

A worker's aggregate says how many records of its window were skipped, an operator's Skip says which one it means. So
whoever folds the log again agrees with the workers, though its own code may fold what theirs could not. Verdicts, which
nobody signs, are asked only where operators have named more records of a window than were skipped in it: a Skip of a
record that was folded after all changes nothing. What is no verdict is passed over there, and a record of which every
verdict says ``skipped`` goes before one of which they disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from aggregation.fold.events import Parked
from aggregation.fold.rejections import PARKED
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import RecordReader
from backends.skips import find_skips
from schemas.avro import CodecError
from schemas.certificates import Trust
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict


@dataclass(slots=True)
class ParkedRecords:
    """What to fold in the place of parked records, by offset; and windows that count more than Skips account for."""

    by_offset: dict[int, Parked] = field(default_factory=dict)
    unfounded: list[tuple[Aggregate, int]] = field(default_factory=list)


def parked_in(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, windows: Iterable[Aggregate]
) -> ParkedRecords:
    """The parked records of published ``windows`` of one partition. Reads the log only if there are any."""
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
            judged = _judged_skipped(reader, task, slot, here)
            here = {at: here[at] for at in sorted(judged[:count])}
        if len(here) < count:
            parked.unfounded.append((window, len(here)))
        parked.by_offset |= here
    return parked


def _judged_skipped(reader: RecordReader, task: str, slot: Slot, offsets: Collection[int]) -> list[int]:
    """Those of ``offsets`` that a verdict calls skipped, first those of which no verdict says otherwise."""
    topic = verdicts_topic(task, slot[0])
    low, high = reader.bounds(topic, slot[1])
    outcomes: dict[int, set[bool]] = {}
    # Every offset has a verdict and copies only add records, so that of offset o stands at position o or later.
    for record in reader.read(topic, slot[1], max(low, min(offsets)), high):
        try:
            verdict = decode_verdict(record.value or b"")
        except CodecError:
            continue  # whoever may write there can write anything
        if verdict.offset in offsets:
            outcomes.setdefault(verdict.offset, set()).add(verdict.outcome == PARKED)
    skipped = sorted(offset for offset, said in outcomes.items() if True in said)
    return sorted(skipped, key=lambda offset: len(outcomes[offset]))
