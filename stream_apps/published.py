"""Published windows as worker and merger read them: what is none is passed over, with a warning."""

from __future__ import annotations

import logging
from typing import assert_never

from aggregation.server.aggregates import Aggregate
from backends.log import LogRecord
from schemas.certificates import Trust
from schemas.records import Flaw, Unverified, aggregate_in


def read_aggregate(
    record: LogRecord, trust: Trust, task: str, region: str, log: logging.Logger
) -> Aggregate | None:
    """The aggregate in a record, if a worker of this region signed it for this task; None, and a warning, otherwise."""
    found = aggregate_in(record.value, record.timestamp_ms, trust, task, (region, record.partition))
    if isinstance(found, Aggregate):
        return found
    log.warning(
        "ignored %s[%d]@%d: %s",
        record.topic,
        record.partition,
        record.offset,
        _in_words(found, region),
        extra={"region": region, "partition": record.partition, "offset": record.offset},
    )
    return None


def _in_words(unverified: Unverified, region: str) -> str:
    match unverified.flaw:
        case Flaw.UNDECODABLE | Flaw.WRONG_PLACE:
            return unverified.detail
        case Flaw.WRONG_KIND | Flaw.FORGED | Flaw.WRONG_REGION:
            return f"not signed by a worker of {region}"
        case _:
            assert_never(unverified.flaw)
