"""Published windows as worker and merger read them: what is none is passed over, with a warning."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import assert_never

from aggregation.server.aggregates import Aggregate, Slot
from backends.log import LogRecord
from schemas.certificates import Trust
from schemas.records import Flaw, Unverified, signed_aggregate_in


@dataclass(frozen=True, slots=True)
class Claim:
    """A window as a worker signed it: by which certificate (its serial, hex), whose, and where its record stands.

    It is a claim: whoever holds a worker's key can sign what its log does not give.
    """

    aggregate: Aggregate
    serial: str
    worker: str
    offset: int

    @property
    def place(self) -> tuple[Slot, int]:
        """(slot, sequence)."""
        return self.aggregate.slot, self.aggregate.sequence

    def __str__(self) -> str:
        one = self.aggregate
        return (
            f"window {one.sequence} of {one.region}[{one.partition}], {one.sha256[:12]}, at offset {self.offset}, "
            f"signed by worker {self.worker} (certificate {self.serial})"
        )


def read_claim(record: LogRecord, trust: Trust, task: str, region: str, log: logging.Logger) -> Claim | None:
    """The window in a record, if a worker of this region signed it for this task; None, and a warning, otherwise."""
    found = signed_aggregate_in(record.value, record.timestamp_ms, trust, task, (region, record.partition))
    if not isinstance(found, Unverified):
        return Claim(found[0], found[1].serial, found[1].name, record.offset)
    log.warning(
        "ignored %s[%d]@%d: %s",
        record.topic,
        record.partition,
        record.offset,
        _in_words(found, region),
        extra={"region": region, "partition": record.partition, "offset": record.offset},
    )
    return None


def read_aggregate(
    record: LogRecord, trust: Trust, task: str, region: str, log: logging.Logger
) -> Aggregate | None:
    """The same, without who signed it."""
    claim = read_claim(record, trust, task, region, log)
    return None if claim is None else claim.aggregate


def _in_words(unverified: Unverified, region: str) -> str:
    match unverified.flaw:
        case Flaw.UNDECODABLE | Flaw.WRONG_PLACE | Flaw.REVOKED:
            return unverified.detail
        case Flaw.WRONG_KIND | Flaw.FORGED | Flaw.WRONG_REGION:
            return f"not signed by a worker of {region}"
        case _:
            assert_never(unverified.flaw)
