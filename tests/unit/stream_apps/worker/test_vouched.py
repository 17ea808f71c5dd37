"""What a worker vouches for, and whose word a worker that starts goes by: that of workers, and of nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.fold.events import Verdict
from backends.log import Headers, LogRecord
from backends.observer import Observer
from schemas.verdicts import decode_verdict
from schemas.vouching import HEADER, Stretch, head_in, mark_of, sign_head
from stream_apps.worker import vouching
from stream_apps.worker.partition import PartitionWorker
from stream_apps.worker.vouching import HEADS_AT_ONCE_MAX, VOUCH_EVERY_S
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.stream_apps.worker.worker_site import REGION, TASK, UPDATES, VERDICTS, WorkerSite

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.server.aggregates import Slot
    from schemas.envelope import Signer


ROOMY = factories.policy(window={"updates_max": 100, "seconds_max": 2.0}, anomaly={"enabled": False})


class Told(Observer):
    """Hears of verdicts that nobody vouches for."""

    def __init__(self) -> None:
        self.unvouched_verdicts: list[int] = []

    def unvouched(self, slot: Slot, verdicts: int) -> None:
        assert slot == (REGION, 0)
        self.unvouched_verdicts.append(verdicts)


@pytest.fixture
def site(tmp_path: Path) -> WorkerSite:
    return WorkerSite(tmp_path, ROOMY)


def plant(site: WorkerSite, offset: int, headers: Headers = ()) -> None:
    records = site.broker.records[VERDICTS]
    value = verdict_bytes(Verdict(offset, "accepted"))
    records.append(LogRecord(VERDICTS, 0, len(records), factories.NOW_MS, None, value, headers))


def vouched(site: WorkerSite, next_offset: int) -> Headers:
    stretch = Stretch(0, next_offset, bytes(32))
    return ((HEADER, sign_head(stretch, factories.worker_signer("w-2"), site.place.head)),)


def heads(site: WorkerSite) -> list[tuple[int, int]]:
    """The stretches that a worker vouches for, in order."""
    found = []
    for record in site.broker.records[VERDICTS]:
        if (claimed := head_in(record.headers)) is not None:
            assert claimed.voucher(record.timestamp_ms, site.context.trust, site.place.head) is not None
            found.append((claimed.stretch.first_offset, claimed.stretch.next_offset))
    return found


def judged(site: WorkerSite) -> list[int]:
    return [decode_verdict(value).offset for value in site.written(VERDICTS)]


async def started(site: WorkerSite) -> PartitionWorker:
    one = site.worker()
    await one.resume()
    return one


def stopped_by(one: PartitionWorker) -> str:
    return "" if one.stopped is None else one.stopped.error_id


# -- whose word a worker goes by


@pytest.mark.parametrize("offsets", [[2], [0, 1, 2, 3], [2, 2, 2, 9, 2**62]], ids=str)
def test_a_verdict_beyond_the_log_that_nobody_vouches_for_stops_nobody_and_is_said_aloud(
    site: WorkerSite, caplog: pytest.LogCaptureFixture, offsets: list[int]
) -> None:
    """One planted verdict of the next offset stopped a worker that started there."""
    for number in range(2):
        site.update(number)
    for offset in offsets:
        plant(site, offset)
    planted = sum(offset >= 2 for offset in offsets)
    told = Told()
    site.context = replace(site.context, observer=told)

    async def run() -> None:
        with caplog.at_level(logging.ERROR):
            one = await started(site)
        assert one.stopped is None
        assert f"ends at offset 2, and {planted} verdicts stand for offsets behind it" in caplog.text
        assert told.unvouched_verdicts == [planted]
        await one.process_all([*site.broker.records[UPDATES], *(site.update(number) for number in (2, 3))])
        assert one.state.next_offset == 4

    asyncio.run(run())
    site.broker.flush()
    own = [decode_verdict(value) for value in site.written(VERDICTS)[len(offsets) :]]
    assert [(one.offset, one.outcome) for one in own] == [(offset, "accepted") for offset in range(4)]


def test_a_log_that_ends_before_what_a_worker_vouches_for_stops_its_partition(site: WorkerSite) -> None:
    for number in range(2):
        site.update(number)
    plant(site, 3, vouched(site, 4))

    async def run() -> None:
        one = await started(site)
        assert one.stopped is not None and one.stopped.error_id == "FLV-3204"
        assert "ends at offset 2, it was folded up to 4 already: worker w-2 vouches" in one.stopped.message
        for number in (2, 3):
            site.update(number)  # the lost records are back
        assert await one.resume() == 0 and one.stopped is None

    asyncio.run(run())


def test_a_voucher_that_an_operator_has_revoked_stops_nobody(site: WorkerSite) -> None:
    """Its key was stolen: the log was never so long. The Revoke may stand where nothing is folded yet."""
    site.update(0)
    plant(site, 29, vouched(site, 30))
    serial = site.context.trust.identify(factories.worker_signer("w-2").certificate).serial

    def revoke(by: Signer, **changed: str) -> None:
        fields = {"task": TASK, "device_id": "", "certificate_serial": serial, "reason": "stolen"}
        site.broker.put(UPDATES, by.sign("Revoke", fields | changed))

    async def run() -> None:
        revoke(factories.device_signer("d-1"))  # only an operator may
        revoke(factories.operator_signer(), task="another")
        revoke(factories.operator_signer(), certificate_serial="ab")
        revoke(factories.operator_signer(), certificate_serial="", device_id=serial)
        one = await started(site)
        assert stopped_by(one) == "FLV-3204"
        revoke(factories.operator_signer())
        await one.resume()
        assert stopped_by(one) == ""
        await one.process_all(site.broker.records[UPDATES])
        await one.resume()  # now it is folded
        assert (stopped_by(one), one.state.next_offset) == ("", 6)

    asyncio.run(run())


# -- what a worker vouches for


def test_a_head_goes_with_the_last_verdict_of_each_portion(site: WorkerSite) -> None:
    async def run() -> None:
        one = await started(site)
        await one.process_all([site.update(number) for number in range(5)])
        await one.process_all([site.update(5)])
        await one.process_all([site.update(7), site.junk()])
        site.broker.flush()

    asyncio.run(run())
    assert judged(site) == list(range(8))
    assert heads(site) == [(0, 5), (5, 6), (6, 8)]


def test_where_portions_come_without_a_pause_one_head_goes_a_second(site: WorkerSite) -> None:
    portions = HEADS_AT_ONCE_MAX + 100

    async def run() -> None:
        one = await started(site)
        for number in range(portions):
            site.clock.sleep(VOUCH_EVERY_S / 20)
            await one.process(site.junk() if number % 2 else site.update(number))
        site.clock.sleep(VOUCH_EVERY_S)
        await one.process(site.junk())
        site.broker.flush()

    asyncio.run(run())
    found = heads(site)
    assert [first for first, _ in found] == [0, *(after for _, after in found[:-1])]
    assert found[-1][1] == portions + 1
    assert HEADS_AT_ONCE_MAX + 100 // 20 <= len(found) <= HEADS_AT_ONCE_MAX + 100 // 20 + 3


def test_verdicts_that_stand_from_before_a_restart_are_vouched_for_by_who_goes_on(site: WorkerSite) -> None:
    async def run() -> None:
        first = await started(site)
        await first.process_all([site.update(number) for number in range(4)])
        site.broker.flush()
        written = [replace(record, headers=()) for record in site.broker.records[VERDICTS]]
        site.broker.records[VERDICTS] = written  # as a worker of before left them
        second = await started(site)
        await second.process_all(site.broker.records[UPDATES])
        site.broker.flush()
        assert heads(site) == []
        await second.process(site.update(4))
        site.broker.flush()

    asyncio.run(run())
    assert judged(site) == [0, 1, 2, 3, 4], "none is written again"
    assert heads(site) == [(0, 5)]


def test_a_head_says_what_the_verdicts_of_its_stretch_are(site: WorkerSite) -> None:
    async def run() -> None:
        one = await started(site)
        await one.process_all([site.update(0), site.junk(), site.update(1)])
        site.broker.flush()

    asyncio.run(run())
    digest = hashlib.sha256()
    for value in site.written(VERDICTS):
        digest.update(mark_of(decode_verdict(value), value, site.context.trust.rules))
    claimed = head_in(site.broker.records[VERDICTS][-1].headers)
    assert claimed is not None and claimed.stretch == Stretch(0, 3, digest.digest())
    assert len(claimed.signature) == 64


def test_what_was_skipped_is_named_by_a_head_with_its_portion(
    site: WorkerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else may say which records were skipped: so whoever folds it says it too."""
    monkeypatch.setattr(vouching, "HEADS_AT_ONCE_MAX", 0)
    records = [site.update(0), site.update(1), site.update(2)]
    skip = {"task": TASK, "region": REGION, "partition": 0, "offset": 1, "reason": "it raises"}
    records.append(site.broker.put(UPDATES, factories.operator_signer().sign("Skip", skip)))
    stands = verdict_bytes(Verdict(1, "skipped"))
    site.broker.records[VERDICTS].append(LogRecord(VERDICTS, 0, 0, factories.NOW_MS, None, stands))

    async def run() -> None:
        one = await started(site)
        await one.process_all(records)
        site.broker.flush()

    asyncio.run(run())
    claimed = [head_in(record.headers) for record in site.broker.records[VERDICTS]]
    assert [(one.stretch.next_offset, one.stretch.skipped) for one in claimed if one] == [(4, (1,))]
