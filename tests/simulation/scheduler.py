"""A seeded scheduler: asyncio on virtual time, blocking calls on greenlets, and processes that pause and die.

Production's coroutines run on a ``VirtualLoop``, which never waits: when nothing is due it moves its clock. What they
hand to ``asyncio.to_thread`` runs on a greenlet that gives way at every effect (``Process.block``), so that all
interleaving is the scheduler's choice and one seed is one schedule.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import Any, TypeVar, TypeVarTuple, Unpack

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Killed(BaseException):
    """The process of whoever gets this has died: nothing that it does has an effect any more."""


class Deadlock(AssertionError):
    """Nothing will ever happen again, and somebody still waits."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting for files, moves the clock to what is due next, and does it."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:  # no callback is ready
            self.loop.do_what_is_due()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, in seconds since the beginning of the run."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self.unhandled: list[BaseException] = []
        super().__init__(selector)
        self.set_task_factory(_own_by_process)

    def time(self) -> float:
        return self.now_s

    def later(self, delay_s: float, action: Callable[[], object]) -> None:
        """As ``call_later``, at a fifth of its cost; the only timers of a run."""
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._numbers), action))

    def do_what_is_due(self) -> None:
        """Move the clock and do one thing after another, until asyncio has something to do or is to stop."""
        while not self._has_something_to_do():
            if not self._due:
                raise Deadlock("nothing will ever happen again")
            self.now_s, _, action = heapq.heappop(self._due)
            action()

    def _has_something_to_do(self) -> bool:
        return bool(vars(self)["_ready"] or vars(self)["_stopping"])  # asyncio's own, which no stub names

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody handled: asyncio would only log it. (A dead process's task that never ends is no error.)"""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.unhandled.append(error)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Nobody sleeps by asyncio: that would not be a process's, and would not pause with it."""
        raise AssertionError("a timer beside VirtualLoop.later")

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Arguments]], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """``asyncio.to_thread`` ends here: the call runs on a greenlet of the process that asks."""
        return running.get().thread(lambda: func(*args))


running: ContextVar[Process] = ContextVar("running")


def _own_by_process(loop: Any, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs)
    process = running.get(None)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task


class Process:
    """What dies, pauses and starts together. Everything that it does begins in ``later``."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, name: str, trace: Callable[..., None]) -> None:
        self.loop = loop
        self.rng = rng
        self.name = name
        self.trace = trace
        self.alive = True
        self.paused = False
        self.clock_jump_s = 0.0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.on_death: list[Callable[[], None]] = []
        self.before_effect: Callable[[Process, str], None] = lambda _process, _what: None
        self._held: list[Callable[[], None]] = []
        self._hub = getcurrent()

    def start_task(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task of this process; what it raises is a defect."""
        token = running.set(self)
        self.watch(self.loop.create_task(main))
        running.reset(token)

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Nobody awaits this: what it raises while the process lives, the run raises at its end."""

        def done(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and (error := future.exception()) and self.alive:
                self.loop.unhandled.append(error)

        future.add_done_callback(done)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do ``action`` then: held back while the process is paused, never once it is dead."""
        self.loop.later(delay_s, lambda: self._do(action))

    def _do(self, action: Callable[[], None]) -> None:
        if self.paused:
            self._held.append(action)
        elif self.alive:
            action()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def wake(self) -> None:
        """SIGCONT."""
        self.paused = False
        held, self._held = self._held, []
        for action in held:
            self.loop.call_soon(self._do, action)

    def kill(self) -> None:
        """SIGKILL: what is under way stays half done."""
        if not self.alive:
            return
        self.alive = False
        self._held.clear()
        for call in self.on_death:
            call()
        for task in list(self.tasks):
            task.cancel()

    # -- blocking calls

    def thread(self, func: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run a blocking call on a greenlet; the future is done when it is."""
        future: asyncio.Future[Result] = self.loop.create_future()

        def body() -> None:
            try:
                result = func()
            except Killed:
                return
            except Exception as error:  # noqa: BLE001 (handed to whoever awaits the call, as a thread would)
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        strand = greenlet(body, self._hub)
        self.later(self.rng.random() * 0.001, strand.switch)
        return future

    def block(self, seconds: float) -> None:
        """Give way for that long; only on a greenlet. Killed if the process died meanwhile."""
        self.later(seconds, getcurrent().switch)
        self.hand_over()

    def hand_over(self) -> None:
        """Let others run until somebody switches back; Killed if the process died meanwhile."""
        assert getcurrent() is not self._hub, "a blocking call outside of a thread"
        self._hub.switch()
        if not self.alive:
            raise Killed

    def effect(self, what: str, *, slow: bool = True) -> None:
        """An effect boundary: the faults of the schedule strike here and, if it is ``slow``, others may run."""
        if not self.alive:
            raise Killed
        self.before_effect(self, what)
        if slow:
            self.block(self.latency_s())

    def latency_s(self) -> float:
        """Mostly a few milliseconds, sometimes up to a second."""
        return 0.002 + float(self.rng.random() ** 12)

    async def sleep(self, seconds: float) -> None:
        """As ``asyncio.sleep``, but that it does not wake a paused process."""
        future: asyncio.Future[None] = self.loop.create_future()
        self.later(seconds, lambda: None if future.done() else future.set_result(None))
        await future


class Pause:
    """A blocking call's wait for something, or for its time to be over."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._strand = getcurrent()
        self._over = False
        self._woken = False

    def until_woken(self, seconds: float) -> bool:
        """Give way until ``wake``, or that long; whether it was ``wake``."""
        self._process.later(seconds, lambda: self._go_on(woken=False))
        self._process.hand_over()
        return self._woken

    def wake(self) -> None:
        """Let the call go on, soon."""
        self._process.later(0.0, lambda: self._go_on(woken=True))

    def _go_on(self, *, woken: bool) -> None:
        if not self._over:
            self._over, self._woken = True, woken
            self._strand.switch()


class SimulatedClock:
    """A process's clock; it may be wrong about the time of day, and jump."""

    def __init__(self, process: Process, epoch_s: float) -> None:
        self._process = process
        self._epoch_s = epoch_s

    def monotonic(self) -> float:
        return self._process.loop.now_s

    def time(self) -> float:
        return self._epoch_s + self._process.loop.now_s + self._process.clock_jump_s

    def sleep(self, seconds: float) -> None:
        self._process.block(seconds)
