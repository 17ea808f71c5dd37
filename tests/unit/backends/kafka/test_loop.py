"""The loop of all readers: there while one is open, gone with the last, and nothing is cut off in the middle."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import TYPE_CHECKING

import pytest

from backends.kafka.loop import SharedLoop, submit
from backends.kafka.reading import LogReader
from tests.small_federation import on_mock_cluster

if TYPE_CHECKING:
    from pathlib import Path


async def nothing() -> None:
    """An ending without anything to end."""


def test_it_ends_with_its_last_user_and_begins_anew_with_the_next() -> None:
    shared, before = SharedLoop(), threading.active_count()
    first = shared.use()
    assert shared.use() is first
    shared.leave(first, nothing)
    assert first.is_running() and threading.active_count() == before + 1
    shared.leave(first, nothing)
    assert first.is_closed() and threading.active_count() == before
    second = shared.use()
    assert second is not first
    shared.leave(second, nothing)


def test_who_leaves_is_told_of_the_end_before_the_loop_stops(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        shared = SharedLoop()
        shared.leave(shared.use(), nothing)
    assert caplog.messages == []


def test_what_is_under_way_at_the_end_is_cancelled_and_awaited() -> None:
    shared, ended = SharedLoop(), []

    async def long() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    loop = shared.use()
    begun = threading.Event()
    submit(long(), loop)
    loop.call_soon_threadsafe(begun.set)
    begun.wait()
    shared.leave(loop, nothing)
    assert ended == [True]


def test_a_forked_process_leaves_its_parents_loop_alone_and_has_one_of_its_own() -> None:
    shared = SharedLoop()
    loop = shared.use()
    child = os.fork()
    if child == 0:
        shared.leave(loop, nothing)
        own = shared.use()
        os._exit(0 if own is not loop and submit(asyncio.sleep(0, 7), own).result(30) == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert submit(asyncio.sleep(0, 8), loop).result(30) == 8
    shared.leave(loop, nothing)


def test_a_reader_that_is_closed_or_let_go_while_it_waits_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    before = threading.active_count()
    with on_mock_cluster(tmp_path) as settings:
        inside = threading.active_count()
        for closed in (True, False):
            reader = LogReader(settings, "r")
            following = reader.follow({("a-topic", 0): 0})
            next(following)
            if closed:
                reader.close()
            del following, reader
            gc.collect()
        assert threading.active_count() <= inside
    gc.collect()
    assert threading.active_count() <= before
    assert caplog.records == [] and list(recwarn) == []
