"""The clock of a window, in memory: it starts with the window's first record, and a tick is written once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from aggregation.fold.events import Tick
from tests.unit.stream_apps.worker.worker_site import UPDATES, WorkerSite, away

if TYPE_CHECKING:
    from pathlib import Path


def ticks(site: WorkerSite) -> list[int]:
    """The first offsets of the windows that were asked to close."""
    site.broker.flush()
    found = [site.event(record) for record in site.broker.records[UPDATES]]
    return [event.window_first_offset for event in found if isinstance(event, Tick)]


def test_a_windows_clock_starts_with_its_first_record_and_no_other(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)  # windows of three updates, two seconds

    async def run() -> None:
        one = site.worker()
        await one.resume()
        site.clock.now_s = 100.0
        await one.process(site.update(0))
        site.clock.now_s = 101.0
        await one.process(site.update(1))
        for now_s, expected in ((101.875, []), (102.0, [0]), (102.125, [0])):
            site.clock.now_s = now_s
            await one.tick()
            assert ticks(site) == expected, now_s

    asyncio.run(run())


def test_the_next_windows_clock_starts_with_its_own_first_record(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        for number in range(3):
            await one.process(site.update(number))
        assert one.state.window.first_offset == 3
        site.clock.now_s = 50.0
        await one.tick()
        assert ticks(site) == []  # an empty window has no age
        await one.process(site.update(3))
        for now_s, expected in ((51.875, []), (52.0, [3])):
            site.clock.now_s = now_s
            await one.tick()
            assert ticks(site) == expected, now_s

    asyncio.run(run())


def test_a_tick_that_came_to_nothing_is_written_again(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        site.broker.refusing[UPDATES] = [away()]
        written = []
        for now_s in (10.0, 11.875, 12.0, 13.0):
            site.clock.now_s = now_s
            await one.tick()
            written.append(len(ticks(site)))
        assert written == [0, 0, 1, 1]

    asyncio.run(run())


def test_a_stopped_partition_asks_for_nothing(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        beyond = site.update(1)
        await one.process(replace(beyond, offset=beyond.offset + 5))  # a real gap
        assert one.stopped is not None and one.stopped.error_id == "FLV-3001"
        site.clock.now_s = 1000.0
        await one.tick()
        assert ticks(site) == []

    asyncio.run(run())
