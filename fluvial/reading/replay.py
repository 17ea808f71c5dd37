"""A partition's published windows as audit and lineage read them, and the fold that they share with the merger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aggregation.errors import IntegrityProblem
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import LogRecord, RecordReader
from schemas.certificates import Trust
from schemas.records import Flaw, Unverified, signed_aggregate_in
from schemas.topics import aggregates_topic
from stream_apps.replaying import FoldRaised, PartitionReplay, Replayed, resume_after, start_of_log

__all__ = [
    "FoldRaised",
    "PartitionReplay",
    "PublishedAggregate",
    "Replayed",
    "authentic_aggregate",
    "find_aggregate",
    "read_aggregates",
    "resume_after",
    "start_of_log",
]


@dataclass(frozen=True, slots=True)
class PublishedAggregate:
    """One record of an aggregates topic: authenticated, or ``flaw`` and ``problem``, in words, say why not.

    ``serial`` (hex) is the certificate's that signed it, ``timestamp_ms`` its LogAppendTime.
    """

    offset: int
    aggregate: Aggregate | None
    problem: str = ""
    flaw: Flaw | None = None
    serial: str = ""
    timestamp_ms: int = 0


def read_aggregates(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, *, start: int, end: int
) -> Iterator[PublishedAggregate]:
    """The records ``start`` to ``end`` - 1 of one partition of an aggregates topic, each authenticated."""
    region, partition = slot
    for record in reader.read(aggregates_topic(task, region), partition, start, end):
        yield authentic_aggregate(record, trust, task, slot)


def find_aggregate(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, *, sequence: int, sha256: str
) -> Aggregate:
    """The published aggregate ``sequence`` with this hash; ``IntegrityProblem`` (FLV-5006) when there is none.

    Sequences have no gaps and duplicates only add records, so it stands at position ``sequence`` or later.
    """
    region, partition = slot
    _, end = reader.bounds(aggregates_topic(task, region), partition)
    for published in read_aggregates(reader, trust, task, slot, start=sequence, end=end):
        found = published.aggregate
        if found is not None and found.sequence == sequence and found.sha256 == sha256:
            return found
    raise IntegrityProblem(
        "FLV-5006",
        f"aggregate {sequence} of {region}[{partition}], {sha256[:16]}, is not in {aggregates_topic(task, region)}",
        hint="start from the beginning of the log with `fluvial audit`, which needs no earlier aggregate",
    )


def authentic_aggregate(record: LogRecord, trust: Trust, task: str, slot: Slot) -> PublishedAggregate:
    """What a record of an aggregates topic's partition ``slot`` is; ``problem`` says why it is none."""
    found = signed_aggregate_in(record.value, record.timestamp_ms, trust, task, slot)
    if isinstance(found, Unverified):
        other = ", not a RegionalAggregate" if found.flaw is Flaw.WRONG_KIND else ""
        return PublishedAggregate(record.offset, None, f"{found.reason}{other}", found.flaw)
    aggregate, signer = found
    return PublishedAggregate(
        record.offset, aggregate, serial=signer.serial, timestamp_ms=record.timestamp_ms
    )
