"""One event loop, in a thread of its own, for all of a process's readers: it is there while one of them is open."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

ENDING_S_MAX: Final = 5.0
log = logging.getLogger("fluvial.kafka")


class SharedLoop:
    """Counts who uses the loop; the first starts its thread and the last ends it.

    A process that is forked off has neither thread nor loop, and leaves those of its parent alone.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may let a reader go while this thread holds it
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._of_the_parent: list[Any] = []
        os.register_at_fork(after_in_child=self._begin_anew)

    def use(self) -> asyncio.AbstractEventLoop:
        """The loop, running; ``leave`` it once."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="fluvial-kafka", daemon=True
                )
                self._thread.start()
            self._users += 1
            return self._loop

    def leave(self, loop: asyncio.AbstractEventLoop, ending: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the ``ending`` of whoever used the loop and does no longer; the loop of a parent is left alone."""
        with self._lock:
            if loop is not self._loop or self._thread is None:
                return
            thread = self._thread
            self._users -= 1
            if not self._users:
                self._loop, self._thread = None, None
            is_last = not self._users
            ended = submit(_end(ending(), stop=is_last), loop)  # before another, who is the last, stops it
        if thread is threading.current_thread():
            return  # a reader that nobody closed, let go by the loop itself: it may not wait for itself
        if concurrent.futures.wait([ended], ENDING_S_MAX).not_done:
            log.warning("a reader of Kafka did not close within %g s, and is left", ENDING_S_MAX)
        if is_last:
            thread.join(ENDING_S_MAX)
            if not thread.is_alive():
                loop.close()

    def _begin_anew(self) -> None:
        self._of_the_parent.append(
            (self._loop, self._thread)
        )  # what is never freed closes nothing of the parent's
        self._lock = threading.RLock()
        self._users, self._loop, self._thread = 0, None, None


async def _end(ending: Coroutine[Any, Any, None], *, stop: bool) -> None:
    """Where the loop stops behind it, nothing is left under way: what is cut off while it runs would say so aloud."""
    try:
        await ending
        if stop:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
    finally:
        if stop:
            loop = asyncio.get_running_loop()
            # In the round in which who waits is told: a loop that has stopped tells nobody.
            loop.call_soon(loop.stop)


SHARED: Final = SharedLoop()


def submit(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Future[T]:
    """Begin work on the loop, from another thread."""
    return asyncio.run_coroutine_threadsafe(work, loop)
