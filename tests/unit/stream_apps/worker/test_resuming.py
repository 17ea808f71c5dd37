"""Where a partition goes on: its own progress against what is published, on a real store and a log in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Verdict
from backends.log import LogRecord, UnreadableRecord
from stream_apps.worker.resume_point import PublishedVerdicts, ResumePoint
from stream_apps.worker.resuming import (
    contradiction,
    cut,
    first_state,
    is_further,
    published_verdicts,
    resume_from,
)
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.stream_apps.worker.worker_site import AGGREGATES, UPDATES, VERDICTS, WorkerSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aggregation.fold.state import PartitionState
    from stream_apps.worker.partition import PartitionWorker

SHA = factories.sha
NEWEST = factories.aggregate("eu", 0, 4)


@pytest.fixture
def site(tmp_path: Path) -> WorkerSite:
    return WorkerSite(tmp_path)


def own(sequence: int, previous_sha256: str = NEWEST.sha256) -> PartitionState:
    """A state that has closed all windows below ``sequence``, the last one with this hash."""
    return replace(factories.state_of(), sequence=sequence, previous_sha256=previous_sha256)


POINT = ResumePoint(NEWEST, None)
NOTHING = ResumePoint(None, None)
CONFLICT = ResumePoint(NEWEST, (NEWEST, SHA("another")))


@pytest.mark.parametrize(
    ("point", "state", "further"),
    [
        pytest.param(NOTHING, own(0, ""), False, id="nothing is published"),
        pytest.param(POINT, own(4, SHA("3")), True, id="the window that we have open is published"),
        pytest.param(POINT, own(2, SHA("1")), True, id="several windows more"),
        pytest.param(POINT, own(5), False, id="the window that we closed last is the newest"),
        pytest.param(POINT, own(9, SHA("8")), False, id="we are further"),
    ],
)
def test_others_are_further(point: ResumePoint, state: PartitionState, further: bool) -> None:  # noqa: FBT001 (a table's column)
    assert is_further(state, point) is further


@pytest.mark.parametrize(
    ("point", "state", "contradicted"),
    [
        pytest.param(NOTHING, own(0, ""), False, id="nothing is published"),
        pytest.param(POINT, own(5), False, id="our last window is the newest, with our hash"),
        pytest.param(POINT, own(5, SHA("ours")), True, id="our last window is the newest, with another hash"),
        pytest.param(POINT, own(6, SHA("ours")), False, id="the newest is older than our last"),
        pytest.param(POINT, own(4, SHA("ours")), False, id="the newest is one that we have not closed"),
        pytest.param(CONFLICT, own(9, SHA("ours")), True, id="two published windows of one sequence"),
    ],
)
def test_what_is_published_contradicts_us(
    point: ResumePoint,
    state: PartitionState,
    contradicted: bool,  # noqa: FBT001 (a table's column)
) -> None:
    problem = contradiction(state, point)
    assert (problem is not None) is contradicted
    assert problem is None or problem.error_id == "FLV-3002"


@pytest.mark.parametrize(
    ("folded", "vouched", "end", "is_cut"),
    [(10, 0, 10, False), (10, 12, 12, False), (10, 12, 11, True), (10, 3, 9, True), (0, 0, 0, False)],
)
def test_a_log_is_cut_where_it_ends_before_what_was_folded_or_vouched_for(
    site: WorkerSite,
    folded: int,
    vouched: int,
    end: int,
    is_cut: bool,  # noqa: FBT001 (a table's column)
) -> None:
    longer = ((vouched, site.context.trust.identify(site.context.signer.certificate)),) if vouched else ()
    problem = cut(site.place, replace(own(0), next_offset=folded), PublishedVerdicts({}, end, longer))
    assert (problem is not None) is is_cut
    assert problem is None or problem.error_id == "FLV-3204"


async def folded(site: WorkerSite, updates: int, first: int = 0) -> PartitionWorker:
    """A worker that has folded so many updates and published what closed."""
    worker = site.worker()
    await worker.resume()
    for number in range(first, first + updates):
        await worker.process(site.update(number))
    site.broker.flush()
    return worker


def test_a_fresh_worker_goes_on_from_the_state_that_is_published(site: WorkerSite) -> None:
    async def run() -> None:
        other = await folded(site, 7)  # windows of three
        fresh = first_state(site.place)
        found = await resume_from(site.place, fresh)
        assert found.problem is None
        assert (found.state.next_offset, found.state.sequence) == (6, 2)
        assert found.state.previous_sha256 == other.state.previous_sha256
        assert (fresh.next_offset, fresh.sequence) == (0, 0)

    asyncio.run(run())


def test_a_worker_that_has_published_everything_itself_keeps_its_own_state(site: WorkerSite) -> None:
    async def run() -> None:
        worker = await folded(site, 7)
        found = await resume_from(site.place, worker.state)
        assert (found.state is worker.state, found.problem) == (True, None)
        assert await worker.resume() == 7

    asyncio.run(run())


def test_a_worker_whose_last_window_stands_with_another_hash_stops(site: WorkerSite) -> None:
    """Another worker has folded the same log to something else: neither may go on as if nothing were."""

    async def run() -> None:
        worker = await folded(site, 4)
        worker.state.previous_sha256 = SHA("what a defect would make of it")
        assert await worker.resume() == 4
        assert worker.stopped is not None and worker.stopped.error_id == "FLV-3002"
        await worker.process(site.update(4))
        assert worker.state.next_offset == 4
        # A fresh start goes on from what is published.
        assert await worker.resume() == 3
        assert worker.stopped is None

    asyncio.run(run())


def test_two_published_windows_of_one_sequence_stop_whoever_reads_them(
    site: WorkerSite, tmp_path: Path
) -> None:
    async def run() -> None:
        await folded(site, 3)
        elsewhere = WorkerSite(tmp_path / "elsewhere")
        await folded(elsewhere, 3, first=10)
        (forked,) = elsewhere.written(AGGREGATES)
        site.broker.put(AGGREGATES, forked)
        worker = site.worker()
        await worker.resume()
        assert worker.stopped is not None and worker.stopped.error_id == "FLV-3002"

    asyncio.run(run())


def test_a_state_that_is_not_in_the_store_is_waited_for(site: WorkerSite, tmp_path: Path) -> None:
    asyncio.run(folded(site, 3))
    (path,) = tmp_path.rglob(f"*{site.newest().state_sha256}*")
    data = path.read_bytes()
    path.unlink()
    waits: list[float] = []

    def restored_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.write_bytes(data)

    site.clock.sleep = restored_meanwhile  # type: ignore[method-assign]
    found = asyncio.run(resume_from(site.place, first_state(site.place)))
    assert found.state.next_offset == 3
    assert len(waits) == 3


def test_verdicts_are_known_from_the_next_offset_on(site: WorkerSite) -> None:
    for offset in range(6):
        site.broker.put(UPDATES, b"junk")
        if offset < 5:
            site.broker.put(VERDICTS, verdict_bytes(Verdict(offset, "undecodable")))
    state = replace(own(0), next_offset=3)
    found = asyncio.run(published_verdicts(site.place, state))
    assert (sorted(found.verdicts), found.longer, found.end) == ([3, 4], (), 6)


def test_damage_in_what_a_worker_has_to_read_stops_that_partition_alone(
    site: WorkerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the worker, with all of its partitions, each time it was started."""
    damage = IntegrityProblem("FLV-3107", "the log is damaged")
    read = site.broker.read

    def damaged(topic: str, *where: int) -> Iterator[LogRecord]:
        if topic == VERDICTS:
            raise damage
        return read(topic, *where)

    async def run() -> None:
        await folded(site, 2)
        monkeypatch.setattr(site.broker, "read", damaged)
        worker = site.worker()
        assert await worker.resume() == 0 and worker.stopped is damage
        await worker.process(site.update(9))
        assert worker.state.next_offset == 0
        monkeypatch.setattr(site.broker, "read", read)
        await worker.resume()
        assert [worker.stopped] == [None]

    asyncio.run(run())


def test_a_partition_that_cannot_be_read_on_stops_and_tries_again_when_it_is_assigned(
    site: WorkerSite,
) -> None:
    problem = IntegrityProblem("FLV-3107", "the log is damaged")

    async def run() -> None:
        worker = await folded(site, 2)
        damage = UnreadableRecord(UPDATES, 0, 2, 0, None, None, problem=problem)
        await worker.process_all([damage])
        await worker.process_all([damage])
        assert worker.stopped is problem and worker.state.next_offset == 2
        await worker.resume()
        assert [worker.stopped] == [None]
        await worker.process_all(site.broker.records[UPDATES])
        await worker.process(site.update(7))
        assert worker.state.next_offset == 3

    asyncio.run(run())
