"""Where a partition goes on: its own progress against what is published, on a real store and a log in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Verdict
from aggregation.server.aggregates import Aggregate
from backends.log import LogRecord, UnreadableRecord
from schemas.avro import encode
from schemas.envelope import open_envelope
from schemas.records import aggregate_in
from stream_apps.published import Claim
from stream_apps.worker.resume_point import PublishedVerdicts, ResumePoint
from stream_apps.worker.resuming import cut, first_state, published_verdicts, resume_from
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.stream_apps.worker.worker_site import AGGREGATES, REGION, TASK, UPDATES, VERDICTS, WorkerSite

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


def point(*sequences: int, disputed: tuple[int, ...] = (), end: int = 10_000) -> ResumePoint:
    """Windows of these sequences, as a worker signed them; beside the disputed ones another signed another."""
    windows = {
        at: tuple(
            Claim(factories.aggregate("eu", 0, at, salt=salt), salt, salt, at)
            for salt in (("", "liar") if at in disputed else ("",))
        )
        for at in sequences
    }
    return ResumePoint(windows, end)


@pytest.mark.parametrize(
    ("found", "base"),
    [
        pytest.param(point(), None, id="nothing is published"),
        pytest.param(point(0, 1, 2, 3), None, id="few windows: all are folded again"),
        pytest.param(point(0, 1, 2, 3, 4), 0, id="one more than are folded again"),
        pytest.param(point(7, 8, 9, 10, 11, 12), 8, id="the newest ones are folded again"),
        pytest.param(point(7, 8, 9, 10, 11, 12, disputed=(12,)), 8, id="of the newest there are two"),
        pytest.param(point(7, 8, 9, 10, 11, 12, disputed=(8,)), 7, id="of an older one there are two"),
        pytest.param(point(7, 8, 9, 10, 11, 12, disputed=(7,)), None, id="what they began with is disputed"),
        pytest.param(point(3, 4, 5, 6, 7, 10**9), 4, id="one far ahead is one window"),
    ],
)
def test_the_state_to_go_on_from_lies_before_what_is_folded_again(
    found: ResumePoint, base: int | None
) -> None:
    assert (None if found.base is None else found.base.aggregate.sequence) == base


@pytest.mark.parametrize(
    ("state", "contradicted"),
    [
        pytest.param(own(5), False, id="our last window is the newest, with our hash"),
        pytest.param(own(5, SHA("ours")), True, id="our last window is the newest, with another hash"),
        pytest.param(own(6, SHA("ours")), False, id="the newest is older than our last"),
        pytest.param(own(4, SHA("ours")), False, id="the newest is one that we have not closed"),
    ],
)
def test_what_is_published_contradicts_us(state: PartitionState, contradicted: bool) -> None:  # noqa: FBT001 (a table's column)
    assert point(4).contradicts(state) is contradicted


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


def test_a_fresh_worker_goes_on_a_few_windows_back_and_publishes_none_of_them_again(site: WorkerSite) -> None:
    async def run() -> None:
        other = await folded(site, 19)  # six windows of three
        fresh = first_state(site.place)
        found = await resume_from(site.place, fresh)
        assert found.problem is None
        assert (found.state.next_offset, found.state.sequence) == (6, 2)
        assert sorted(found.standing) == [2, 3, 4, 5]
        assert (fresh.next_offset, fresh.sequence) == (0, 0)
        published = site.written(AGGREGATES)
        late = site.worker()
        assert await late.resume() == 6
        await late.process(site.broker.records[UPDATES][-1])
        site.broker.flush()
        assert late.state.previous_sha256 == other.state.previous_sha256
        assert site.written(AGGREGATES) == published

    asyncio.run(run())


def test_a_worker_that_has_published_everything_itself_keeps_its_own_state(site: WorkerSite) -> None:
    async def run() -> None:
        worker = await folded(site, 7)
        found = await resume_from(site.place, worker.state)
        assert (found.state is worker.state, found.problem) == (True, None)
        assert await worker.resume() == 7

    asyncio.run(run())


def test_a_worker_whose_last_window_stands_with_another_hash_folds_it_again(site: WorkerSite) -> None:
    """Memory that was spoilt, or a lie beside it: the log says which."""

    async def run() -> None:
        worker = await folded(site, 4)
        worker.state.previous_sha256 = SHA("what bad memory would make of it")
        assert await worker.resume() == 0
        await worker.process(site.update(4))
        assert worker.stopped is None
        assert worker.state.previous_sha256 == site.newest().sha256

    asyncio.run(run())


def lie(site: WorkerSite, **changed: object) -> bytes:
    """Another window than the newest, signed by somebody with a worker's key, its state stored with it."""
    record = open_envelope(site.written(AGGREGATES)[-1]).record | changed
    payload = encode("RegionalAggregate", record)
    signer = factories.worker_signer("thief").of_task(site.context.genesis.domain)
    return signer.sign_payload("RegionalAggregate", payload)


LIES: dict[str, dict[str, object]] = {
    "other sums": {"sum_sha256": SHA("other sums")},
    "a state that there is not": {"state_sha256": SHA("no state")},
    "the next sequence": {"sequence": 2, "first_offset": 6, "next_offset": 7},
    "a sequence far ahead": {"sequence": 10**6, "first_offset": 6, "next_offset": 7},
}


@pytest.mark.parametrize("changed", LIES.values(), ids=LIES)
@pytest.mark.parametrize("alone", [False, True], ids=["beside the honest one", "in its place"])
def test_a_lie_at_the_end_of_its_output_is_found_by_a_worker_that_starts(
    site: WorkerSite,
    changed: dict[str, object],
    alone: bool,  # noqa: FBT001 (a table's column)
) -> None:
    async def run() -> None:
        honest = await folded(site, 7)
        windows = site.broker.records[AGGREGATES]
        planted = lie(site, **changed)
        if alone and "sequence" not in changed:
            windows.pop()
        site.broker.put(AGGREGATES, planted)
        late = site.worker()
        assert await late.resume() == 0
        for number in range(7, 10):
            await late.process(site.update(number))
        site.broker.flush()
        assert late.stopped is None
        claims = [aggregate_of_record(site, value) for value in site.written(AGGREGATES)]
        mine = [one for one in claims if one.sha256 == honest.state.previous_sha256]
        assert mine, "the honest window stands there, whoever signed another"
        assert max(one.sequence for one in claims if one.sequence < 10**6) == 2
        assert late.state.sequence == 3

    asyncio.run(run())


def aggregate_of_record(site: WorkerSite, value: bytes) -> Aggregate:
    read = aggregate_in(value, factories.NOW_MS, site.context.trust, TASK, (REGION, 0))
    assert isinstance(read, Aggregate)
    return read


def test_a_window_beyond_the_logs_end_says_that_the_log_was_cut(site: WorkerSite) -> None:
    """Nobody can tell a cut log from a lie then: the partition stops until an operator does."""

    async def run() -> None:
        await folded(site, 6)
        site.broker.put(AGGREGATES, lie(site, sequence=2, first_offset=6, next_offset=9))
        late = site.worker()
        await late.resume()
        assert late.stopped is not None and late.stopped.error_id == "FLV-3204"

    asyncio.run(run())


def test_a_window_beyond_the_logs_end_is_passed_over_once_its_signer_is_revoked(site: WorkerSite) -> None:
    async def run() -> None:
        await folded(site, 6)
        planted = lie(site, sequence=2, first_offset=6, next_offset=20)
        site.broker.put(AGGREGATES, planted)
        signer = open_envelope(planted).certificate
        serial = site.context.trust.identify(signer).serial
        late = site.worker()
        await late.resume()
        assert "FLV-3204" in str(late.stopped)
        operator = factories.operator_signer().of_task(site.context.genesis.domain)
        site.broker.put(UPDATES, factories.revoke_bytes("", serial, by=operator))
        await late.resume()
        assert [late.stopped] == [None]
        another = site.worker()
        await another.resume()
        assert [another.stopped] == [None]

    asyncio.run(run())


def first_window(site: WorkerSite) -> Aggregate:
    return aggregate_of_record(site, site.written(AGGREGATES)[0])


def test_a_state_that_is_not_in_the_store_is_waited_for(site: WorkerSite, tmp_path: Path) -> None:
    asyncio.run(folded(site, 15))
    (path,) = tmp_path.rglob(f"*{first_window(site).state_sha256}*")
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
