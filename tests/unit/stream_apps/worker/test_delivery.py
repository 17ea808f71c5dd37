"""Records that a framework lost are read from the log; records that were rewritten under a worker are noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import IntegrityProblem
from backends.log import LogRecord
from stream_apps.worker import delivery
from stream_apps.worker.delivery import RECENT_RECORDS_MAX, RecentRecords, records_through
from tests import factories
from tests.unit.stream_apps.worker.worker_site import UPDATES, WorkerSite

if TYPE_CHECKING:
    from pathlib import Path


def through(site: WorkerSite, start: int, last: LogRecord) -> list[int]:
    async def run() -> list[int]:
        state = factories.state_of()
        return [record.offset async for record in records_through(site.place, start, last, state)]

    return asyncio.run(run())


def reads(site: WorkerSite) -> list[str]:
    return [what for what in site.broker.happened if what.startswith("read")]


def test_what_was_lost_on_the_way_is_read_before_the_record_that_came(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)
    records = [site.junk() for _ in range(5)]
    assert through(site, 1, records[4]) == [1, 2, 3, 4]
    assert reads(site) == ["read updates from 1"]


def test_nothing_is_read_when_nothing_was_lost(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)
    records = [site.junk() for _ in range(2)]
    assert [through(site, 1, records[1]), through(site, 0, records[0])] == [[1], [0]]
    assert reads(site) == []


def test_as_many_lost_records_are_read_at_once_as_memory_should_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MISSING_BYTES_AT_ONCE", 2 * len(b"junk"))
    site = WorkerSite(tmp_path)
    records = [site.junk() for _ in range(6)]
    assert through(site, 0, records[5]) == [0, 1, 2, 3, 4, 5]
    assert reads(site) == ["read updates from 0", "read updates from 2", "read updates from 4"]


def test_a_real_gap_is_left_to_the_fold(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)
    site.junk()
    beyond = LogRecord(UPDATES, 0, 7, factories.NOW_MS, None, b"junk")
    assert through(site, 1, beyond) == [7]


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
