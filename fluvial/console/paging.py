"""What a request reads with: one page of a task's topics and store, opened when needed, in a bounded pool."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from backends.environment import load_settings
from backends.kafka.reading import LogReader
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.console.budget import Budget, PagedLog, PagedStore
from fluvial.console.limits import READERS_MAX, REQUESTS_WAITING_MAX
from fluvial.console.problems import away, busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.console.recent import Recent
    from fluvial.console.watch import Known, Watch
    from schemas.manifests import Genesis

T = TypeVar("T")

_CLOSE_S: Final = 2.0


class Readers:
    """Open connections that wait for the next request. One that failed is closed and not used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[Settings, LogReader]] = []

    def take(self, settings: Settings) -> LogReader:
        """An idle one for these settings, or a new one."""
        with self._lock:
            for index, (known, reader) in enumerate(self._idle):
                if known == settings:
                    del self._idle[index]
                    return reader
        return LogReader(settings, "fluvial-console-pages")

    def give(self, settings: Settings, reader: LogReader) -> None:
        """Keep it for the next; the oldest is closed past ``READERS_MAX``."""
        with self._lock:
            self._idle.append((settings, reader))
            leaving = [self._idle.pop(0)] if len(self._idle) > READERS_MAX else []
        for _, one in leaving:
            one.close()

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            leaving, self._idle = self._idle, []
        for _, one in leaving:
            one.close()


@dataclass
class Page:
    """One request's view of a task: what is known, and under ``budget`` its log and store."""

    watch: Watch
    known: Known
    command: str
    readers: Readers
    budget: Budget = field(default_factory=Budget)
    _log: PagedLog | None = None
    _opened: tuple[Settings, LogReader] | None = None
    _objects: TaskStore | None = None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.watch.task

    @property
    def recent(self) -> Recent:
        """What was followed; ConnectionProblem FLV-4002 before the store has answered once."""
        if self.watch.recent is None:
            raise away("store", self.known.store.reason or "the task is not known yet")
        return self.watch.recent

    @property
    def genesis(self) -> Genesis:
        """Version 0; ConnectionProblem FLV-4002 before the store has answered once."""
        if self.known.genesis is None:
            raise away("store", self.known.store.reason or "the task is not known yet")
        return self.known.genesis

    @property
    def head(self) -> int:
        """The newest version."""
        self.genesis  # noqa: B018 (raises where nothing is known)
        return self.known.head or 0

    @property
    def log(self) -> PagedLog:
        """The topics; ConnectionProblem FLV-3100 while no broker answers."""
        if self._log is None:
            problem = self.known.kafka.problem(self.known.at_ms)
            if problem:
                raise away("kafka", problem)
            settings = load_settings(self.watch.home)
            self._opened = settings, self.readers.take(settings)
            self._log = PagedLog(self._opened[1], self.budget)
        return self._log

    @property
    def objects(self) -> TaskStore:
        """The store; ConnectionProblem FLV-4002 while it does not answer."""
        if self._objects is None:
            problem = self.known.store.problem(self.known.at_ms)
            if problem:
                raise away("store", problem)
            store = open_object_store(load_settings(self.watch.home).store)
            self._objects = TaskStore(PagedStore(store, self.budget), self.task)
        return self._objects

    def close(self, *, failed: bool) -> None:
        """Give back what was opened."""
        if self._opened is not None and failed:
            self._opened[1].close()
        elif self._opened is not None:
            self.readers.give(*self._opened)
        self._opened = None

    def say(self, words: str) -> str:
        """A command to copy, for this home and task."""
        return f"{self.command} {words} --task {self.task}"


class Pool:
    """Runs requests that read, ``READERS_MAX`` at a time; more than ``REQUESTS_WAITING_MAX`` are refused (FLV-6510)."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._readers = Readers()
        self._executor = ThreadPoolExecutor(READERS_MAX, "console page")
        self._waiting = 0

    async def run(self, watch: Watch, function: Callable[[Page], T]) -> T:
        """What ``function`` makes of one page."""
        if self._waiting >= REQUESTS_WAITING_MAX:
            raise busy(REQUESTS_WAITING_MAX)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: self._run(watch, function)
            )
        finally:
            self._waiting -= 1

    def _run(self, watch: Watch, function: Callable[[Page], T]) -> T:
        page = Page(watch, watch.known(), self._command, self._readers)
        failed = True
        try:
            answer = function(page)
            failed = False
        finally:
            page.close(failed=failed)
        return answer

    def close(self) -> None:
        """Take no more, and close what is idle."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(RuntimeError):
            self._readers.close()
