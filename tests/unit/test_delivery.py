"""Records that a framework lost are read from the log; records that were rewritten after they were folded are noticed."""

from __future__ import annotations

import pytest

from aggregation.errors import IntegrityProblem
from backends.log import LogRecord
from schemas.topics import updates_topic
from stream_apps.worker.delivery import RECENT_RECORDS_MAX, RecentRecords
from tests import factories

UPDATES = updates_topic(factories.TASK, factories.REGION)


def test_another_record_at_an_offset_that_was_folded_is_noticed() -> None:
    recent = RecentRecords()
    record = LogRecord(UPDATES, 0, 7, factories.NOW_MS, None, b"update" * 40)
    recent.add(record)
    recent.require_same(record, "here")
    rewritten = [
        LogRecord(UPDATES, 0, 7, factories.NOW_MS + 1, None, record.value),
        LogRecord(UPDATES, 0, 7, factories.NOW_MS, None, b"update" * 39 + b"UPDATE"),
        LogRecord(UPDATES, 0, 7, factories.NOW_MS, None, b"longer" + b"update" * 40),
        LogRecord(UPDATES, 0, 7, factories.NOW_MS, None, None),
    ]
    for other in rewritten:
        with pytest.raises(IntegrityProblem, match="FLV-3204"):
            recent.require_same(other, "here")


def test_no_more_records_are_remembered_than_the_limit() -> None:
    recent = RecentRecords()
    for offset in range(RECENT_RECORDS_MAX + 1):
        recent.add(LogRecord(UPDATES, 0, offset, factories.NOW_MS, None, b"u"))
    recent.require_same(LogRecord(UPDATES, 0, 0, factories.NOW_MS, None, b"forgotten"), "here")
    with pytest.raises(IntegrityProblem):
        recent.require_same(LogRecord(UPDATES, 0, 1, factories.NOW_MS, None, b"known"), "here")
