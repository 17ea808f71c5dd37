"""One partition's worker: folds its log record by record and makes the fold's effects true.

The state is a pure function of the log before ``next_offset``, so nothing here can make it wrong; what this file has to
get right is that every effect happens, in order: a window's verdicts acknowledged, its objects stored, then its
aggregate record. An effect stays in the outbox until it has happened, so a call that was cancelled half-way (Faust
cancels agents when partitions move) is finished by the next one, and doing an effect twice is harmless.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.events import Barrier, Event, Parked, Verdict, WindowClosed
from aggregation.fold.rejections import PARKED
from aggregation.fold.state import PartitionState
from aggregation.fold.transition import fold_into
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate, Slot
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, Headers, LogRecord, Position
from backends.outages import (
    OUTAGES,
    UNREADABLE,
    Outage,
    Result,
    retry_through_outage,
    retry_through_outage_async,
)
from backends.skips import find_parking_skip
from schemas.records import decode_record, skip_in
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.windows import (
    EncodedWindow,
    decode_verdict,
    encode_verdict,
    encode_window,
    restore_state,
    state_names,
)
from stream_apps.process_context import ProcessContext
from stream_apps.worker.resume_point import (
    PublishedVerdicts,
    RecentRecords,
    ResumePoint,
    divergence,
    log_was_cut,
    read_published_verdicts,
    read_resume_point,
)

TICK_REPEAT_S = 2.0
REFUSALS_S = 60.0
"""How old a window of refusals only may grow before a Tick closes it."""
MISSING_BYTES_AT_ONCE = 16 << 20
VERDICTS_UNACKNOWLEDGED_MAX = 4096
"""A partition's verdicts on their way to the broker; more wait, so that an outage cannot fill the memory."""

DEFECT = "FLV-3202"

log = logging.getLogger("fluvial.worker")


@dataclass(frozen=True, slots=True)
class _VerdictRecord:
    """A verdict as it goes to its topic."""

    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A closed window whose effects are not true yet."""

    closed: WindowClosed
    encoded: EncodedWindow
    headers: Headers


class PartitionWorker:
    """Folds one partition. Made when the partition is first assigned, kept when it moves and comes back."""

    def __init__(self, outside: ProcessContext, region: str, partition: int) -> None:
        self.outside = outside
        self.region = region
        self.partition = partition
        self.slot: Slot = (region, partition)
        self.state: PartitionState = self._first_state()
        self.stopped: FluvialError | None = None
        self._task = outside.genesis.task
        self._outbox: deque[_Outgoing] = deque()
        self._verdicts: deque[tuple[_VerdictRecord, Future[Position]]] = deque()
        self._published: dict[int, bytes] = {}
        self._recent = RecentRecords()
        self._skips: dict[int, Parked] = {}
        self._skips_searched_through = -1
        self._folding = 0
        self._draining: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._window_since_s = 0.0
        self._ticked: tuple[int, float] = (-1, 0.0)
        self._tick: Future[Position] | None = None

    # -- resuming

    async def resume(self) -> int:
        """Where to go on reading: our own progress, or the newest published window if that is further."""
        async with self._lock:
            return await self._resume()

    async def _resume(self) -> int:
        if self.stopped is not None:
            self._forget()
        await self._drain()
        tail = await self._retry(f"read the output of {self}", self._read_resume_point)
        self._adopt(tail, await self._retry(f"resume {self}", lambda: self._further(tail), UNREADABLE))
        if self.stopped is None:
            standing = await self._retry(f"read the verdicts of {self}", self._read_published)
            self._published = standing.verdicts
            judged = max(self.state.next_offset, standing.judged)
            if judged > standing.end:
                self._stop(log_was_cut(str(self), standing.end, judged))
        self._skips = {at: one for at, one in self._skips.items() if at >= self.state.next_offset}
        self.outside.observer.resumed(self.slot, self.state)
        crash_point("worker.resumed")
        return self.state.next_offset

    def _forget(self) -> None:
        """Begin again from what is published, as another worker would: what stopped us may be mended by now."""
        self.state = self._first_state()
        self.stopped = None
        self._outbox.clear()
        self._verdicts.clear()
        self._published.clear()
        self._recent.clear()
        self._draining = None

    def _read_resume_point(self) -> ResumePoint:
        with self.outside.open_reader(f"resume-{self.region}-{self.partition}") as reader:
            return read_resume_point(reader, self.outside.trust, self._task, self.region, self.partition)

    def _read_published(self) -> PublishedVerdicts:
        with self.outside.open_reader(f"verdicts-{self.region}-{self.partition}") as reader:
            return read_published_verdicts(
                reader, self._task, self.region, self.partition, self.state.next_offset
            )

    def _further(self, tail: ResumePoint) -> PartitionState | None:
        """The published state, where it is further than ours."""
        newest = tail.newest
        if newest is None or newest.sequence < self.state.sequence or tail.conflict is not None:
            return None
        return self._restored(newest)

    def _adopt(self, tail: ResumePoint, published: PartitionState | None) -> None:
        newest = tail.newest
        if tail.conflict is not None:
            self._stop(divergence(*tail.conflict))
        elif published is not None:
            self.state = published
            self._outbox.clear()  # others have published what was in it
            log.info(
                "%s resumes at offset %d, version %d",
                self,
                published.next_offset,
                published.version,
                extra=self._place(published.next_offset),
            )
        elif (
            newest is not None
            and newest.sequence == self.state.sequence - 1
            and newest.sha256 != self.state.previous_sha256
        ):
            self._stop(divergence(newest, self.state.previous_sha256))

    def _restored(self, aggregate: Aggregate) -> PartitionState:
        data = self.outside.store.get_object(aggregate.state_sha256)
        policy_sha256, reference_sha256 = state_names(data)
        return restore_state(
            data,
            aggregate,
            partitions=self.state.partitions,
            layout=self.outside.layout,
            policy=self._policy(policy_sha256),
            reference=self.outside.store.reference(reference_sha256, self.outside.layout),
        )

    def _first_state(self) -> PartitionState:
        genesis = self.outside.genesis
        return partition_state.initial(
            task=genesis.task,
            region=self.region,
            partition=self.partition,
            partitions=genesis.regions[self.region].partitions,
            layout=self.outside.layout,
            policy=self.outside.policy,
            model_sha256=genesis.model_sha256,
        )

    # -- folding

    async def process(self, record: LogRecord) -> None:
        """Fold one record, or the missing ones before it first. After a defect or a real gap: nothing more.

        ConnectionProblem where waiting does not help, as with a producer that has failed for good: start again.
        """
        async with self._lock:
            if self.stopped is not None and not await self._set_aside(record):
                return
            try:
                self._recent.require_same(record, str(self))
                async for one in self._records(min(self.state.next_offset, record.offset), record):
                    await self._fold(one)
            except ConnectionProblem as error:
                self._stop(error)
                raise  # waiting does not help and nothing is wrong with the log: a fresh process may do better
            except FluvialError as error:
                self._stop(error)
            except Exception as error:
                log.exception(
                    "%s: a defect at offset %d", self, self._folding, extra=self._place(self._folding)
                )
                self._skips_searched_through = self._folding
                self._stop(self._defect(error))

    def _defect(self, error: Exception) -> IntegrityProblem:
        return IntegrityProblem(
            DEFECT,
            f"folding offset {self._folding} raised {type(error).__name__}: {error}",
            where=str(self),
            hint="this is a defect of ours: please report it with the worker's log and this record. To go on without "
            f"it: `fluvial skip --task {self._task} --region {self.region} --partition {self.partition} "
            f"--offset {self._folding} --reason TEXT`",
        )

    async def _set_aside(self, record: LogRecord) -> bool:
        """Whether an operator's Skip, in this record or in one since the fold raised, names what it raised at.

        Then fold on without that, from what is published: the fold may have left the state half changed.
        """
        assert self.stopped is not None
        parked, searched = self._folding, self._skips_searched_through
        if self.stopped.error_id != DEFECT or record.offset <= searched:
            return False
        self._skips_searched_through = record.offset
        async for one in self._records(searched + 1, record):
            skip = skip_in(one.value, one.timestamp_ms, self.outside.trust)
            ours = (self._task, self.region, self.partition, parked)
            if skip is not None and (skip.task, skip.region, skip.partition, skip.offset) == ours:
                log.warning(
                    "%s: offset %d is set aside by the Skip at offset %d",
                    self,
                    parked,
                    one.offset,
                    extra=self._place(parked),
                )
                self._skips[parked] = Parked(one.offset, skip.reason)
                await self._retry(f"publish the verdicts of {self}", self._flush_verdicts)
                await self._resume()
                return self.stopped is None
        return False

    def _stop(self, error: FluvialError) -> None:
        self.stopped = error
        self.outside.observer.stopped(self.slot, error)
        at = self._folding if error.error_id == DEFECT else self.state.next_offset
        log.error("%s stops at offset %d, the others go on.\n%s", self, at, error, extra=self._place(at))

    async def _records(self, start: int, last: LogRecord) -> AsyncIterator[LogRecord]:
        """The records from ``start`` to ``last``.

        What lies before ``last`` was lost on the way, as when Faust cancels agents: it is read from the log itself.
        """

        def read() -> list[LogRecord]:
            with self.outside.open_reader(f"missing-{self.region}-{self.partition}") as reader:
                topic = updates_topic(self._task, self.region)
                return _some(reader.read(topic, self.partition, start, last.offset))

        while start < last.offset:
            log.info(
                "%s reads offsets %d to %d itself", self, start, last.offset - 1, extra=self._place(start)
            )
            some = await self._retry(f"read what {self} missed", read)
            if not some:
                break  # a real gap: the fold says so
            for record in some:
                yield record
            start += len(some)  # every offset has a record, see backends.kafka.client
        yield last

    async def _fold(self, record: LogRecord) -> None:
        await self._drain()
        state = self.state
        if record.offset < state.next_offset:
            return
        self._folding = record.offset  # where a raising fold leaves next_offset is not known
        self.outside.observer.folding(self.slot, record)
        event: Event = await self._skipped(record.offset) or decode_record(
            record.value, record.timestamp_ms, self.outside.trust, state.policy
        )
        if isinstance(event, Barrier) and state.applies(event):
            event = await self._retry(
                f"load what {self} needs for version {event.version}", self._loader(event), UNREADABLE
            )
        self._recent.add(record)
        was_empty = not state.window.records
        for effect in fold_into(state, record.offset, event):
            match effect:
                case Verdict():
                    headers = self.outside.observer.judged(self.slot, record, event, effect)
                    self._publish_verdict(effect, headers)
                case WindowClosed():
                    headers = self.outside.observer.window_closed(self.slot, effect, state)
                    self._outbox.append(_Outgoing(effect, encode_window(state, effect), headers))
        if was_empty and state.window.records:
            self._window_since_s = self.outside.clock.monotonic()
        self.outside.observer.folded(self.slot, record, state)
        if len(self._verdicts) >= VERDICTS_UNACKNOWLEDGED_MAX:
            await self._retry(f"publish the verdicts of {self}", self._flush_verdicts)
        await self._drain()

    async def _skipped(self, offset: int) -> Parked | None:
        """What an operator's Skip has made of a record.

        Where another worker has obeyed it, that verdict stands already, and code without the defect has to agree.
        """
        standing = self._published.get(offset)
        if offset not in self._skips and standing is not None and decode_verdict(standing).outcome == PARKED:

            def find() -> Parked | None:
                with self.outside.open_reader(f"skip-{self.region}-{self.partition}") as reader:
                    slot = (self.region, self.partition)
                    return find_parking_skip(reader, self.outside.trust, self._task, slot, offset)

            found = await self._retry(f"find the Skip of offset {offset} of {self}", find)
            if found is not None:  # else the verdict was planted
                self._skips[offset] = found
        return self._skips.get(offset)

    def _loader(self, barrier: Barrier) -> Callable[[], Barrier]:
        def load() -> Barrier:
            reference = self.outside.store.reference(barrier.reference_sha256, self.outside.layout)
            return replace(barrier, policy=self._policy(barrier.policy_sha256), reference=reference)

        return load

    def _policy(self, sha256: str) -> Policy:
        if sha256 == self.state.policy_sha256:
            return self.state.policy
        return self.outside.store.policy(sha256)

    async def _retry(
        self, what: str, action: Callable[[], Result], while_raising: tuple[Outage, ...] = OUTAGES
    ) -> Result:
        return await retry_through_outage_async(what, action, while_raising, self.outside.clock)

    # -- effects

    def _publish_verdict(self, verdict: Verdict, headers: Headers) -> None:
        value = encode_verdict(verdict)
        standing = self._published.pop(verdict.offset, None)
        if standing is not None:
            if standing == value:
                return  # it stands there from before the restart
            log.warning(
                "%s: another verdict stands for offset %d; it is not ours",
                self,
                verdict.offset,
                extra=self._place(verdict.offset),
            )
        self._append_verdict(_VerdictRecord(verdict.device_id.encode(), value, headers))
        while self._verdicts and self._verdicts[0][1].done() and not self._verdicts[0][1].exception():
            self._verdicts.popleft()

    def _append_verdict(self, one: _VerdictRecord) -> None:
        future = self.outside.writer.append(
            verdicts_topic(self._task, self.region),
            one.value,
            key=one.key,
            partition=self.partition,
            headers=one.headers,
        )
        self._verdicts.append((one, future))

    async def _drain(self) -> None:
        """Make every closed window's effects true, in order. A cancelled caller leaves it running for the next one."""
        if self._outbox and (self._draining is None or self._draining.done()):
            self._draining = asyncio.create_task(self._empty_outbox())
        if self._draining is not None:
            await asyncio.shield(self._draining)
            self._draining = None

    async def _empty_outbox(self) -> None:
        while self._outbox:
            await asyncio.to_thread(self._publish_window, self._outbox[0])
            self._outbox.popleft()

    def _publish_window(self, outgoing: _Outgoing) -> None:
        outside, encoded = self.outside, outgoing.encoded
        crash_point("worker.before-verdicts")
        retry_through_outage(f"publish the verdicts of {self}", self._flush_verdicts, clock=outside.clock)
        crash_point("worker.after-verdicts")
        for data in encoded.objects.values():
            retry_through_outage(
                f"store a window of {self}", partial(outside.store.put_object, data), clock=outside.clock
            )
        crash_point("worker.after-objects")
        value = outside.signer.sign_payload("RegionalAggregate", encoded.payload)
        published = outside.writer.append(
            aggregates_topic(self._task, self.region),
            value,
            key=str(self.partition).encode(),
            partition=self.partition,
            headers=outgoing.headers,
        )
        flush = partial(outside.writer.flush, FLUSH_TIMEOUT_S)
        retry_through_outage(f"publish a window of {self}", flush, clock=outside.clock)
        published.result(timeout=0)  # raises what the broker said, if it refused the record
        outside.observer.window_published(self.slot, outgoing.closed, encoded.aggregate)
        one = encoded.aggregate
        log.debug(
            "%s published window %d: %d accepted",
            self,
            one.sequence,
            one.accepted,
            extra=self._place(one.next_offset - 1) | {"sequence": one.sequence, "version": one.version},
        )
        crash_point("worker.after-aggregate")

    def _flush_verdicts(self) -> None:
        self.outside.writer.flush(FLUSH_TIMEOUT_S)
        failed = [one for one, future in self._verdicts if future.exception(timeout=0) is not None]
        self._verdicts.clear()
        for one in failed:
            self._append_verdict(one)
        if failed:
            self.outside.writer.flush(FLUSH_TIMEOUT_S)

    async def tick(self) -> None:
        """Write a Tick into our own partition when the open window is older than the policy allows."""
        window, now_s = self.state.window, self.outside.clock.monotonic()
        if self.stopped is not None or not window.records:
            return
        seconds_max = self.state.policy.window.seconds_max
        # Refusals alone make no version: such a window may be longer, so that a trickle of junk makes few of them.
        if now_s - self._window_since_s < (seconds_max if window.accepted else max(seconds_max, REFUSALS_S)):
            return
        if self._ticked[0] == window.first_offset and now_s - self._ticked[1] < TICK_REPEAT_S:
            return
        if self._tick is not None and not self._tick.done():
            return  # while the broker is away one is enough
        self._ticked = (window.first_offset, now_s)
        record = {
            "task": self._task,
            "region": self.region,
            "partition": self.partition,
            "window_first_offset": window.first_offset,
        }
        value = self.outside.signer.sign("Tick", record)
        self._tick = self.outside.writer.append(
            updates_topic(self._task, self.region), value, partition=self.partition
        )

    def _place(self, offset: int) -> dict[str, object]:
        """The fields of a log line."""
        state = self.state
        here = {"region": self.region, "partition": self.partition, "offset": offset}
        return here | {"version": state.version, "sequence": state.sequence}

    def __str__(self) -> str:
        return f"{updates_topic(self.outside.genesis.task, self.region)}[{self.partition}]"


def _some(records: Iterator[LogRecord]) -> list[LogRecord]:
    """The next records, as many as memory should hold at once."""
    taken: list[LogRecord] = []
    size = 0
    for record in records:
        taken.append(record)
        size += len(record.value or b"")
        if size >= MISSING_BYTES_AT_ONCE:
            break
    return taken
