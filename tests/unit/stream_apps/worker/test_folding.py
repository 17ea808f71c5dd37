"""What a record needs before it can be folded: decoded, parked by an operator, a barrier's objects loaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Barrier, Parked, RejectedRecord, Update, Verdict, WindowClosed
from aggregation.reasons import Reason, because
from stream_apps.worker.folding import Folding
from stream_apps.worker.parking import Parking
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.stream_apps.worker.worker_site import RULES, UPDATES, WorkerSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aggregation.fold.events import Effect, Event
    from backends.log import LogRecord

PARKED_VERDICT = verdict_bytes(Verdict(0, "skipped", because(Reason.PARKED, 1, "it raises")))


@pytest.fixture
def site(tmp_path: Path) -> WorkerSite:
    return WorkerSite(tmp_path)


def skip_bytes(offset: int, **changed: object) -> bytes:
    fields = {"task": factories.TASK, "region": "eu", "partition": 0, "offset": offset, "reason": "it raises"}
    return factories.operator_signer().sign("Skip", fields | changed)


def event_in(folding: Folding, record: LogRecord, published: bytes | None = None) -> Event:
    return asyncio.run(folding.event_in(record, published))


# -- decoding and loading


def test_a_record_is_what_its_bytes_say(site: WorkerSite) -> None:
    folding = Folding(site.place)
    update, junk = site.update(1), site.junk()
    assert isinstance(event_in(folding, update), Update)
    assert isinstance(event_in(folding, junk), RejectedRecord)
    assert folding.offset == junk.offset


def test_a_records_size_is_judged_by_the_policy_in_force(site: WorkerSite) -> None:
    folding = Folding(site.place)
    update = site.update(1)
    size = len(update.value or b"")
    for bytes_max, fits in ((size, True), (size - 1, False)):
        rules = factories.policy(updates={"bytes_max": bytes_max})
        folding.go_on_from(replace(folding.state, policy=rules))
        assert isinstance(event_in(folding, update), Update) is fits


def test_a_barriers_policy_is_loaded_before_it_is_folded(site: WorkerSite) -> None:
    folding = Folding(site.place)
    rules = factories.policy(window={"updates_max": 9}, anomaly={"enabled": False})
    site.store.put_object(rules.canonical())
    event = event_in(folding, site.broker.put(UPDATES, factories.barrier_bytes(1, rules)))
    assert isinstance(event, Barrier) and event.policy is not None
    assert event.policy.sha256 == rules.sha256
    assert event.reference is None


def test_the_policy_in_force_is_not_loaded_again(site: WorkerSite) -> None:
    folding = Folding(site.place)
    event = event_in(folding, site.broker.put(UPDATES, factories.barrier_bytes(1, RULES)))
    assert isinstance(event, Barrier)
    assert event.policy is folding.state.policy
    assert "get" not in site.broker.happened


def test_nothing_is_loaded_for_a_barrier_that_changes_nothing(site: WorkerSite) -> None:
    folding = Folding(site.place)
    elsewhere = factories.barrier_bytes(1, factories.policy(), region="us")
    event = event_in(folding, site.broker.put(UPDATES, elsewhere))
    assert isinstance(event, Barrier) and event.policy is None
    assert site.broker.happened == []


def test_folding_changes_the_state_and_returns_what_has_to_become_true(site: WorkerSite) -> None:
    folding = Folding(site.place)
    effects: list[Effect] = []
    for number in range(3):
        record = site.update(number)
        effects += folding.fold(record, event_in(folding, record))
    assert [type(effect) for effect in effects] == [Verdict, Verdict, Verdict, WindowClosed]
    assert folding.state.next_offset == 3


def test_a_record_that_was_replaced_after_it_was_folded_is_noticed(site: WorkerSite) -> None:
    folding = Folding(site.place)
    record = site.update(1)
    folding.require_same(record)
    folding.fold(record, event_in(folding, record))
    folding.require_same(record)
    with pytest.raises(IntegrityProblem, match="FLV-3204"):
        folding.require_same(replace(record, timestamp_ms=record.timestamp_ms + 1))
    folding.begin_again()
    folding.require_same(replace(record, timestamp_ms=record.timestamp_ms + 1))
    assert folding.state.next_offset == 0


# -- parked records


def test_a_record_that_another_worker_has_parked_is_parked_here_too(site: WorkerSite) -> None:
    folding = Folding(site.place)
    record = site.update(1)
    skip = site.broker.put(UPDATES, skip_bytes(record.offset))
    assert event_in(folding, record, PARKED_VERDICT) == Parked(skip.offset, "it raises")


def test_a_planted_verdict_parks_nothing(site: WorkerSite) -> None:
    folding = Folding(site.place)
    record = site.update(1)
    for elsewhere in ({"region": "us"}, {"partition": 1}, {"task": "fashion"}):
        site.broker.put(UPDATES, skip_bytes(record.offset, **elsewhere))
    site.broker.put(UPDATES, skip_bytes(record.offset + 1))
    assert isinstance(event_in(folding, record, PARKED_VERDICT), Update)


def test_however_many_verdicts_were_planted_the_log_is_read_once_for_skips(site: WorkerSite) -> None:
    folding = Folding(site.place)
    records = [site.update(number) for number in range(5)]
    skip = site.broker.put(UPDATES, skip_bytes(records[3].offset))
    events = [event_in(folding, record, PARKED_VERDICT) for record in records]
    assert [isinstance(event, Update) for event in events] == [True, True, True, False, True]
    assert events[3] == Parked(skip.offset, "it raises")
    assert [what for what in site.broker.happened if what.startswith("read updates")] == [
        "read updates from 1"
    ]
    folding.go_on_from(folding.state)  # what stands is learnt anew, and Skips with it
    later = site.broker.put(UPDATES, skip_bytes(records[4].offset))
    assert event_in(folding, records[4], PARKED_VERDICT) == Parked(later.offset, "it raises")


def test_a_skip_alone_parks_nothing(site: WorkerSite) -> None:
    folding = Folding(site.place)
    record = site.update(1)
    site.broker.put(UPDATES, skip_bytes(record.offset))
    assert isinstance(event_in(folding, record), Update)
    accepted = verdict_bytes(Verdict(0, "accepted"))
    assert isinstance(event_in(folding, record, accepted), Update)


def test_after_the_fold_has_raised_a_skip_behind_it_parks_the_record(site: WorkerSite) -> None:
    async def run() -> None:
        folding = Folding(site.place)
        record = site.update(0)
        await folding.event_in(record, None)
        folding.raised()
        assert not await folding.parked_by(record)
        assert not await folding.parked_by(site.update(1))
        site.broker.put(UPDATES, skip_bytes(7))
        skip = site.broker.put(UPDATES, skip_bytes(record.offset))
        later = site.update(2)
        assert await folding.parked_by(later)  # the Skip stands before what came: it is read from the log
        assert await folding.event_in(record, None) == Parked(skip.offset, "it raises")

    asyncio.run(run())


async def some(records: list[LogRecord]) -> AsyncIterator[LogRecord]:
    for record in records:
        yield record


def test_no_record_is_searched_twice(site: WorkerSite) -> None:
    parking = Parking(site.place)
    records = [site.junk() for _ in range(6)]
    parking.begin_search(1, ())
    assert parking.unsearched_from(records[1]) is None
    assert parking.unsearched_from(records[3]) == 2
    assert parking.unsearched_from(records[3]) is None
    assert parking.unsearched_from(records[5]) == 4


def test_what_is_parked_is_remembered_until_it_is_folded(
    site: WorkerSite, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        parking = Parking(site.place)
        site.update(0)
        skip = site.broker.put(UPDATES, skip_bytes(0))
        assert await parking.search(0, some([skip]), factories.state_of())
        assert f"{site.place}: offset 0 is parked by the Skip at offset 1" in caplog.text
        for next_offset, expected in ((0, Parked(1, "it raises")), (1, None)):
            parking.forget_before(next_offset)
            assert await parking.parked(0, None) == expected

    asyncio.run(run())
