"""What a worker does about records that the broker has not taken or refuses, in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import ConnectionProblem
from tests import factories
from tests.unit.stream_apps.worker.worker_site import AGGREGATES, VERDICTS, WorkerSite, away, process

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_waits_for_the_broker_when_too_many_verdicts_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_apps.worker.outbox.VERDICTS_UNACKNOWLEDGED_MAX", 4)
    site = WorkerSite(tmp_path, factories.policy(anomaly={"enabled": False}))

    async def run() -> None:
        one = site.worker()
        await one.resume()
        standing = []
        for number in range(6):
            await one.process(site.update(number))
            standing.append(len(site.written(VERDICTS)))
        assert standing == [0, 0, 0, 4, 4, 4]

    asyncio.run(run())


def test_a_refused_verdict_is_sent_again_though_no_record_comes_any_more(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        site.broker.refusing[VERDICTS] = [away()]
        site.broker.flush()
        assert site.written(VERDICTS) == []
        await one.tick()
        await one.process(site.update(1))  # waits for what the tick began
        assert len(site.written(VERDICTS)) == 1
        flushes = site.broker.flushes
        site.broker.flush()
        await one.tick()
        await one.resume()
        assert site.broker.flushes == flushes + 1  # our own: what is acknowledged is not waited for again
        assert len(site.written(VERDICTS)) == 2

    asyncio.run(run())


def test_a_refused_aggregate_ends_the_worker_and_a_fresh_one_publishes_the_window(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        site.broker.refusing[AGGREGATES] = [away()]
        updates = [site.update(number) for number in range(3)]
        with pytest.raises(ConnectionProblem):
            await process(one, updates)
        assert one.stopped is not None
        fresh = site.worker()
        assert await fresh.resume() == 0
        await process(fresh, updates)
        assert site.newest().next_offset == 3

    asyncio.run(run())
