"""Which records of a partition its workers folded as ``skipped``, from what is signed.

A worker's aggregate says how many records of its window were skipped, an operator's Skip says which one it means. So
whoever folds the log again agrees with the workers, though its own code may fold what theirs could not. Verdicts are
asked only where operators have named more records of a window than were skipped in it: a Skip of a record that was
folded after all changes nothing. There a worker's word goes first: its signed heads name what it skipped (ADR 34). What
nobody vouches for counts where no head speaks of the record, as of workers before heads: what is no verdict is passed
over, and a record of which every verdict says ``skipped`` goes before one of which they disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from aggregation.fold.events import Parked
from aggregation.fold.rejections import PARKED
from aggregation.server.aggregates import Aggregate
from backends.log import LogRecord, RecordReader
from backends.skips import find_skips
from schemas.avro import CodecError
from schemas.certificates import Trust
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.vouching import HeadPlace, Stretch, head_in


@dataclass(slots=True)
class ParkedRecords:
    """What to fold in the place of parked records, by offset; and windows that count more than Skips account for."""

    by_offset: dict[int, Parked] = field(default_factory=dict)
    unfounded: list[tuple[Aggregate, int]] = field(default_factory=list)


def parked_in(
    reader: RecordReader, trust: Trust, task: str, place: HeadPlace, windows: Iterable[Aggregate]
) -> ParkedRecords:
    """The parked records of published ``windows`` of one partition. Reads the log only if there are any."""
    parked, slot = ParkedRecords(), place.slot
    counting = [window for window in windows if window.counts.get(PARKED)]
    if not counting:
        return parked
    first, end = min(one.first_offset for one in counting), max(one.next_offset for one in counting)
    named = find_skips(reader, trust, task, slot, first=first, end=end)
    for window in counting:
        count = window.counts[PARKED]
        here = {at: named[at] for at in named if window.first_offset <= at < window.next_offset}
        if len(here) > count:
            judged = _judged_skipped(reader, trust, task, place, here)
            here = {at: here[at] for at in sorted(judged[:count])}
        if len(here) < count:
            parked.unfounded.append((window, len(here)))
        parked.by_offset |= here
    return parked


def _judged_skipped(
    reader: RecordReader, trust: Trust, task: str, place: HeadPlace, offsets: Collection[int]
) -> list[int]:
    """Those of ``offsets`` that were skipped: by a worker's word, and then by verdicts of which no worker speaks.

    Of the latter first those of which no verdict says otherwise.
    """
    slot = place.slot
    topic = verdicts_topic(task, slot[0])
    low, high = reader.bounds(topic, slot[1])
    outcomes: dict[int, set[bool]] = {}
    spoken_of: set[int] = set()
    vouched: set[int] = set()
    # Every offset has a verdict and copies only add records, so that of offset o stands at position o or later.
    for record in reader.read(topic, slot[1], max(low, min(offsets)), high):
        stretch = _vouched(record, trust, place, offsets)
        if stretch is not None:
            spoken_of.update(at for at in offsets if stretch.first_offset <= at < stretch.next_offset)
            vouched.update(stretch.skipped)
        try:
            verdict = decode_verdict(record.value or b"")
        except CodecError:
            continue  # whoever may write there can write anything
        if verdict.offset in offsets:
            outcomes.setdefault(verdict.offset, set()).add(verdict.outcome == PARKED)
    skipped = sorted(offset for offset, said in outcomes.items() if True in said and offset not in spoken_of)
    skipped.sort(key=lambda offset: len(outcomes[offset]))
    return sorted(vouched.intersection(offsets)) + skipped


def _vouched(record: LogRecord, trust: Trust, place: HeadPlace, offsets: Collection[int]) -> Stretch | None:
    """What a worker says, beside a verdict, of one of ``offsets``."""
    claimed = head_in(record.headers)
    if claimed is None:
        return None
    stretch = claimed.stretch
    if not any(stretch.first_offset <= at < stretch.next_offset for at in offsets):
        return None
    return stretch if claimed.voucher(record.timestamp_ms, trust, place) is not None else None
