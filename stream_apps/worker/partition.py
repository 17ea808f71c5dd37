"""One partition's worker: folds its log record by record and makes the fold's effects true.

The state is a pure function of the log before ``next_offset``, so nothing here can make it wrong; what has to be
right is that every effect happens, in order. The steps, and the part that does each:

Resuming, whenever the partition is assigned:

1. Finish what is under way (``outbox``).
2. Read the newest published windows and go on from the state of one a few back, if that is further than ours:
   those behind it are folded again, since a worker's key can sign what the log does not give (``resuming``).
3. Read the verdicts that stand already, so that none is written again; stop where the log was cut (``resuming``).

A record:

1. After a defect, go on only if an operator's Skip, here or since, parks the record that raised (``parking``).
2. Stop if another record stood at this offset when it was folded (``delivery``).
3. Read the records before it that the framework lost (``delivery``), and for each of them and for it:
4. Finish what is under way; nothing more if its offset is folded.
5. Decode and authenticate it, and load what a barrier names (``folding``).
6. Fold it.
7. Take its verdict in, and keep a window that closed (``_make_true``, the one interpreter of effects).
8. Wait while too many verdicts are on their way, then make windows' effects true (``outbox``).
9. Send the verdicts on their way: after the last record of those that came together, and before anything is waited for.

The clock:

1. Send verdicts again that the broker refused, where no record comes that would (``outbox``).
2. Decide whether the open window is old enough (``ticking``).
3. Write a Tick into our own log: it closes the window where it is folded, and not before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Final, assert_never

from aggregation.errors import (
    AccessProblem,
    ConnectionProblem,
    EnvironmentProblem,
    FluvialError,
    IntegrityProblem,
)
from aggregation.fold.events import Effect, Event, Verdict, WindowClosed
from aggregation.fold.state import PartitionState
from backends.crash_points import crash_point
from backends.log import LogRecord, Position, UnreadableRecord
from stream_apps.process_context import ProcessContext
from stream_apps.worker.folding import Folding
from stream_apps.worker.outbox import HandedOn, Outbox
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.resuming import cut, published_verdicts, resume_from, warn_of_unvouched
from stream_apps.worker.ticking import AskedTick, tick_due

DEFECT: Final = "FLV-3202"
EXHAUSTED: Final = "FLV-1031"

log = logging.getLogger("fluvial.worker")


class PartitionWorker:
    """Folds one partition. Made when the partition is first assigned, kept when it moves and comes back.

    ``stopped`` says why nothing more is folded; resuming begins again from what is published.
    """

    def __init__(
        self, context: ProcessContext, region: str, partition: int, handed_on: HandedOn | None = None
    ) -> None:
        self.context = context
        self.place = PartitionPlace(context, region, partition)
        self.stopped: FluvialError | None = None
        self._folding = Folding(self.place)
        self._outbox = Outbox(self.place, handed_on)
        # Records, rebalances and parking come from different tasks, and each has to find the last one's work whole.
        self._lock = asyncio.Lock()
        self._window_since_s = 0.0
        self._asked: AskedTick | None = None
        self._tick: Future[Position] | None = None

    @property
    def state(self) -> PartitionState:
        """What the log before ``state.next_offset`` comes to."""
        return self._folding.state

    # -- resuming

    async def resume(self) -> int:
        """Where to go on reading: our own progress, or a few windows before the newest if that is further."""
        async with self._lock:
            return await self._resume()

    async def _resume(self) -> int:
        if self.stopped is not None:
            self._begin_again()
        await self._outbox.drain()
        problem: IntegrityProblem | None
        try:
            problem = await self._go_on()
        except IntegrityProblem as damage:  # of what it wrote itself, or of what it has to read there
            problem = damage
        self.context.observer.resumed(self.place.slot, self.state)
        if problem is not None:
            self._stop(problem)
        crash_point("worker.resumed")
        return self.state.next_offset

    async def _go_on(self) -> IntegrityProblem | None:
        """From our own progress or what is published; what does not fit together, if anything."""
        found = await resume_from(self.place, self.state)
        self._folding.go_on_from(found.state)  # at once: a Tick for the state before would come too late
        self._outbox.standing_windows = dict(found.standing)
        return found.problem or await self._learn_verdicts()

    async def _learn_verdicts(self) -> IntegrityProblem | None:
        standing = await published_verdicts(self.place, self.state)
        self._outbox.published = standing.verdicts
        warn_of_unvouched(self.place, self.state, standing)
        return cut(self.place, self.state, standing)

    def _begin_again(self) -> None:
        """From what is published, as another worker would: what stopped us may be mended by now."""
        self.stopped = None
        self._folding.begin_again()
        self._outbox.clear()

    # -- folding

    async def process(self, record: LogRecord) -> None:
        """Fold one record, or the missing ones before it first. After a defect or a real gap: nothing more.

        ConnectionProblem where waiting does not help, as with a producer that has failed for good: start again.
        """
        await self.process_all((record,))

    async def process_all(self, records: Iterable[LogRecord]) -> None:
        """The same for records that came together: a rebalance waits until all of them are folded."""
        async with self._lock:
            try:
                for record in records:
                    await self._process(record)
            finally:
                self._send_verdicts()

    async def _process(self, record: LogRecord) -> None:
        if isinstance(record, UnreadableRecord):
            if self.stopped is None:
                self._stop(record.problem)
            return
        if self.stopped is not None and not await self._parked_by(record):
            return
        try:
            self._folding.require_same(record)
            if record.offset <= self.state.next_offset:
                await self._fold(record)
                return
            self._outbox.send()  # it may take long
            async for one in self._folding.records_through(record):
                await self._fold(one)
        except (ConnectionProblem, AccessProblem) as error:
            self._stop(error)
            raise  # waiting does not help and nothing is wrong with the log: a fresh process may do better
        except FluvialError as error:
            self._stop(error)
        except MemoryError as error:
            self._stop(self._exhausted(), error)  # nothing is wrong with the record: nobody may park it
        except Exception as error:  # it is logged with its traceback  # noqa: BLE001
            self._folding.raised()
            self._stop(self._defect(error), error)

    async def _fold(self, record: LogRecord) -> None:
        if not self._outbox.is_idle:
            await self._outbox.drain()
        state = self.state
        if record.offset < state.next_offset:
            return
        self.context.observer.folding(self.place.slot, record)
        published = self._outbox.published.get(record.offset)
        event = self._folding.event_at_once(record, published)
        if event is None:
            self._outbox.send()  # it may take long
            event = await self._folding.event_in(record, published)
        was_empty = not state.window.records
        for effect in self._folding.fold(record, event):
            self._make_true(effect, record, event)
        if was_empty and state.window.records:
            self._window_since_s = self.context.clock.monotonic()
        self.context.observer.folded(self.place.slot, record, state)
        await self._outbox.make_room()
        if not self._outbox.is_idle:
            await self._outbox.drain()

    def _send_verdicts(self) -> None:
        """Hand over what waits for others of its kind: none come any more for now."""
        try:
            self._outbox.send()
        except (ConnectionProblem, AccessProblem) as error:
            self._stop(error)
            raise  # as in _process
        except FluvialError as error:
            self._stop(error)

    def _make_true(self, effect: Effect, record: LogRecord, event: Event) -> None:
        observer, slot = self.context.observer, self.place.slot
        match effect:
            case Verdict():
                headers = observer.judged(slot, record, event, effect)
                self._outbox.add_verdict(effect, headers, self.state)
            case WindowClosed():
                headers = observer.window_closed(slot, effect, self.state)
                self._outbox.add_window(effect, headers, self.state)
            case _:
                assert_never(effect)

    # -- stopping

    def _stop(self, error: FluvialError, defect: Exception | None = None) -> None:
        self.stopped = error
        self.context.observer.stopped(self.place.slot, error)
        at = self._folding.offset if error.error_id == DEFECT else self.state.next_offset
        fields = self.place.fields(at, self.state)
        text = "%s stops at offset %d, the others go on.\n%s"
        log.error(text, self, at, error, exc_info=defect, extra=fields)

    def _exhausted(self) -> EnvironmentProblem:
        return EnvironmentProblem(
            EXHAUSTED,
            f"the memory ran out while offset {self._folding.offset} was folded",
            where=str(self),
            hint="give the worker more memory, or fewer partitions; started again, it goes on from what is published",
        )

    def _defect(self, error: Exception) -> IntegrityProblem:
        place, at = self.place, self._folding.offset
        return IntegrityProblem(
            DEFECT,
            f"folding offset {at} raised {type(error).__name__}: {error}",
            where=str(self),
            hint="this is a defect of ours: please report it with the worker's log and this record. To go on without "
            f"it: `fluvial park --task {place.task} --region {place.region} --partition {place.partition} "
            f"--offset {at} --reason TEXT`",
        )

    async def _parked_by(self, record: LogRecord) -> bool:
        """Whether an operator's Skip parks what the fold raised at, and the partition goes on without that."""
        if self.stopped is None or self.stopped.error_id != DEFECT:
            return False
        if not await self._folding.parked_by(record):
            return False
        await self._outbox.flush_verdicts()
        await self._resume()  # from what is published: the fold may have left the state half changed
        return self.stopped is None

    # -- the clock

    async def tick(self) -> None:
        """Write a Tick into our own partition when the open window is older than the policy allows.

        And send again what the broker refused, unless a record or a rebalance is under way, which does so itself.
        """
        if self.stopped is not None:
            return
        if not self._lock.locked():
            self._outbox.send_refused_again()
        window, now_s = self.state.window, self.context.clock.monotonic()
        if not tick_due(
            window,
            self._asked,
            now_s=now_s,
            window_since_s=self._window_since_s,
            seconds_max=self.state.policy.window.seconds_max,
            on_its_way=self._tick is not None and not self._tick.done(),
        ):
            return
        self._asked = AskedTick(window.first_offset, now_s)
        place = self.place
        record = {
            "task": place.task,
            "region": place.region,
            "partition": place.partition,
            "window_first_offset": window.first_offset,
        }
        value = self.context.signer.sign("Tick", record)
        self._tick = self.context.writer.append(place.updates, value, partition=place.partition)

    def __str__(self) -> str:
        return str(self.place)
