"""One event loop, in a thread of its own, for all of a process's readers: it is there while one of them is open."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

ENDING_S_MAX: Final = 5.0


class SharedLoop:
    """Counts who uses the loop; the first starts its thread and the last ends it.

    A process that is forked off has neither thread nor loop, and leaves those of its parent alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
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

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whoever used the loop does no longer."""
        with self._lock:
            if loop is not self._loop or self._thread is None:
                return  # the parent's
            self._users -= 1
            if self._users:
                return
            thread, self._loop, self._thread = self._thread, None, None
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(ENDING_S_MAX)
            if not thread.is_alive():
                loop.close()

    def runs(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is this process's."""
        return loop is self._loop

    def _begin_anew(self) -> None:
        self._of_the_parent.append(
            (self._loop, self._thread)
        )  # what is never freed closes nothing of the parent's
        self._lock = threading.Lock()
        self._users, self._loop, self._thread = 0, None, None


SHARED: Final = SharedLoop()


def submit(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Future[T]:
    """Begin work on the loop, from another thread."""
    return asyncio.run_coroutine_threadsafe(work, loop)
