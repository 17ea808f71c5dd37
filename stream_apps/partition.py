"""One partition's worker: folds its log record by record and makes the fold's effects true.

The state is a pure function of the log before ``next_offset``, so nothing here can make it wrong; what this file has to
get right is that every effect happens, in order: a window's verdicts acknowledged, its objects stored, then its
aggregate record. An effect stays in the outbox until it has happened, so a call that was cancelled half-way (Faust
cancels agents when partitions move) is finished by the next one, and doing an effect twice is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

from adapters.kafka import LogReader, LogRecord, LogWriter, Position
from adapters.patience import UNREADABLE, patiently, patiently_async
from adapters.task_store import TaskStore
from aggregation import state as partition_state
from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem
from aggregation.events import Barrier, Event, Verdict, WindowClosed
from aggregation.fold import fold_into
from aggregation.layout import Layout
from aggregation.merge import Aggregate
from aggregation.policy import Policy
from aggregation.state import PartitionState
from schemas.certificates import Role, Trust
from schemas.codec import CodecError
from schemas.envelope import Signer, open_envelope
from schemas.manifests import Genesis
from schemas.records import authenticate, decode_record
from schemas.sealing import (
    SealedWindow,
    aggregate_of,
    decode_verdict,
    encode_verdict,
    restore_state,
    seal_window,
    state_names,
)
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic

TAIL_RECORDS_FIRST = 8
FLUSH_TIMEOUT_S = 10.0
TICK_REPEAT_S = 2.0
MISSING_BYTES_AT_ONCE = 16 << 20

log = logging.getLogger("fluvial.worker")


@dataclass(frozen=True, slots=True)
class Outside:
    """What all partitions of one worker share: the task, and the ways in and out."""

    genesis: Genesis
    layout: Layout
    policy: Policy
    trust: Trust
    store: TaskStore
    writer: LogWriter
    signer: Signer
    open_reader: Callable[[str], LogReader]


class PartitionWorker:
    """Folds one partition. Made when the partition is first assigned, kept when it moves and comes back."""

    def __init__(self, outside: Outside, region: str, partition: int) -> None:
        self.outside = outside
        self.region = region
        self.partition = partition
        self.state: PartitionState = self._first_state()
        self.stopped: FluvialError | None = None
        self._task = outside.genesis.task
        self._outbox: deque[SealedWindow] = deque()
        self._verdicts: deque[tuple[Verdict, Future[Position]]] = deque()
        self._verdicts_through = -1
        self._draining: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._window_since_s = 0.0
        self._ticked: tuple[int, float] = (-1, 0.0)
        self._tick: Future[Position] | None = None

    # -- resuming

    async def resume(self) -> int:
        """Where to go on reading: our own progress, or the newest published window if that is further."""
        async with self._lock:
            if self.stopped is not None:
                self._forget()
            await self._drain()
            tail, verdicts_through, end = await patiently_async(f"read the output of {self}", self._read_tail)
            self._verdicts_through = max(self._verdicts_through, verdicts_through)
            if tail is not None and tail.sequence >= self.state.sequence:
                self.state = await patiently_async(f"resume {self}", lambda: self._restored(tail), UNREADABLE)
                self._outbox.clear()  # others have published what was in it
                log.info(
                    "%s resumes at offset %d, version %d", self, self.state.next_offset, self.state.version
                )
            elif (
                tail is not None
                and tail.sequence == self.state.sequence - 1
                and tail.sha256 != self.state.previous_sha256
            ):
                self._stop(divergence(tail, self.state.previous_sha256))
            if self.state.next_offset > end:
                self._stop(self._log_was_cut(end))
            return self.state.next_offset

    def _forget(self) -> None:
        """Begin again from what is published, as another worker would: what stopped us may be mended by now."""
        self.state = self._first_state()
        self.stopped = None
        self._outbox.clear()
        self._verdicts.clear()
        self._verdicts_through = -1
        self._draining = None

    def _log_was_cut(self, end: int) -> IntegrityProblem:
        """Kafka would read such a log from its beginning, and all that is new in it would pass for folded before."""
        return IntegrityProblem(
            "FLV-3204",
            f"the log ends at offset {end}, it was folded up to {self.state.next_offset} already",
            where=str(self),
            hint="the topic was made anew or restored from an older copy: bring the missing records back",
        )

    def _read_tail(self) -> tuple[Aggregate | None, int, int]:
        """Our newest published window, the offset up to which verdicts stand, and where the log ends."""
        with self.outside.open_reader(f"resume-{self.region}-{self.partition}") as reader:
            tail = self._newest_aggregate(reader)
            _, end = reader.bounds(updates_topic(self._task, self.region), self.partition)
            return tail, self._newest_verdict(reader, end), end

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

    def _newest_aggregate(self, reader: LogReader) -> Aggregate | None:
        """The highest sequence near the tail of our output that a worker of this region signed."""
        topic = aggregates_topic(self._task, self.region)
        low, high = reader.bounds(topic, self.partition)
        span = TAIL_RECORDS_FIRST
        while high > low:
            start = max(low, high - span)
            found = [
                a
                for r in reader.read(topic, self.partition, start, high)
                if (a := self._authentic(r)) is not None
            ]
            if found:
                return max(found, key=lambda aggregate: aggregate.sequence)
            if start == low:
                return None
            span *= 4
        return None

    def _authentic(self, record: LogRecord) -> Aggregate | None:
        return read_aggregate(record, self.outside.trust, self._task, self.region)

    def _newest_verdict(self, reader: LogReader, end: int) -> int:
        """The offset up to which verdicts stand already: never beyond the log, whatever somebody wrote there."""
        record = reader.last(verdicts_topic(self._task, self.region), self.partition)
        if record is None or record.value is None:
            return -1
        try:
            return min(decode_verdict(record.value).offset, end - 1)
        except CodecError:
            log.warning(
                "%s: the newest record of the verdicts topic is not a verdict; writing all again", self
            )
            return -1

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
            if self.stopped is not None:
                return
            try:
                if record.offset > self.state.next_offset:
                    await self._fold_missing(record.offset)
                await self._fold(record)
            except ConnectionProblem as error:
                self._stop(error)
                raise  # waiting does not help and nothing is wrong with the log: a fresh process may do better
            except FluvialError as error:
                self._stop(error)
            except Exception as error:
                log.exception("%s: a defect at offset %d", self, self.state.next_offset)
                self._stop(
                    IntegrityProblem(
                        "FLV-3202",
                        f"folding offset {self.state.next_offset} raised {type(error).__name__}: {error}",
                        where=str(self),
                        hint="this is a defect of ours: please report it with the worker's log and this record",
                    )
                )

    def _stop(self, error: FluvialError) -> None:
        self.stopped = error
        log.error("%s stops at offset %d, the others go on.\n%s", self, self.state.next_offset, error)

    async def _fold_missing(self, end: int) -> None:
        """Faust lost records of ours (it cancels agents when partitions move): read them from the log itself."""
        start = self.state.next_offset
        log.info("%s reads offsets %d to %d itself", self, start, end - 1)

        def read() -> list[LogRecord]:
            with self.outside.open_reader(f"missing-{self.region}-{self.partition}") as reader:
                return _some(reader.read(updates_topic(self._task, self.region), self.partition, start, end))

        while start < end:
            for record in await patiently_async(f"read what {self} missed", read):
                await self._fold(record)
            if self.state.next_offset == start:
                return  # a real gap: the fold says so
            start = self.state.next_offset

    async def _fold(self, record: LogRecord) -> None:
        await self._drain()
        state = self.state
        if record.offset < state.next_offset:
            return
        event: Event = decode_record(
            record.value, record.timestamp_ms, self.outside.trust, bytes_max=state.policy.updates.bytes_max
        )
        if isinstance(event, Barrier) and state.applies(event):
            event = await patiently_async(
                f"load what {self} needs for version {event.version}", self._loader(event), UNREADABLE
            )
        was_empty = not state.window.records
        for effect in fold_into(state, record.offset, event):
            match effect:
                case Verdict():
                    self._publish_verdict(effect)
                case WindowClosed():
                    self._outbox.append(seal_window(state, effect))
        if was_empty and state.window.records:
            self._window_since_s = time.monotonic()
        await self._drain()

    def _loader(self, barrier: Barrier) -> Callable[[], Barrier]:
        def load() -> Barrier:
            reference = self.outside.store.reference(barrier.reference_sha256, self.outside.layout)
            return replace(barrier, policy=self._policy(barrier.policy_sha256), reference=reference)

        return load

    def _policy(self, sha256: str) -> Policy:
        if sha256 == self.state.policy_sha256:
            return self.state.policy
        return self.outside.store.policy(sha256)

    # -- effects

    def _publish_verdict(self, verdict: Verdict) -> None:
        if verdict.offset <= self._verdicts_through:
            return  # it stands there from before the restart
        self._verdicts.append((verdict, self._append_verdict(verdict)))
        while self._verdicts and self._verdicts[0][1].done() and not self._verdicts[0][1].exception():
            self._verdicts.popleft()

    def _append_verdict(self, verdict: Verdict) -> Future[Position]:
        return self.outside.writer.append(
            verdicts_topic(self._task, self.region),
            encode_verdict(verdict),
            key=verdict.device_id.encode(),
            partition=self.partition,
        )

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

    def _publish_window(self, sealed: SealedWindow) -> None:
        patiently(f"publish the verdicts of {self}", self._flush_verdicts)
        for data in sealed.objects.values():
            patiently(f"store a window of {self}", lambda data=data: self.outside.store.put_object(data))  # type: ignore[misc]
        value = self.outside.signer.seal_payload("RegionalAggregate", sealed.payload)
        published = self.outside.writer.append(
            aggregates_topic(self._task, self.region),
            value,
            key=str(self.partition).encode(),
            partition=self.partition,
        )
        patiently(f"publish a window of {self}", lambda: self.outside.writer.flush(FLUSH_TIMEOUT_S))
        published.result(timeout=0)  # raises what the broker said, if it refused the record

    def _flush_verdicts(self) -> None:
        self.outside.writer.flush(FLUSH_TIMEOUT_S)
        failed = [verdict for verdict, future in self._verdicts if future.exception(timeout=0) is not None]
        self._verdicts.clear()
        for verdict in failed:
            self._verdicts.append((verdict, self._append_verdict(verdict)))
        if failed:
            self.outside.writer.flush(FLUSH_TIMEOUT_S)

    async def tick(self) -> None:
        """Write a Tick into our own partition when the open window is older than the policy allows."""
        window, now_s = self.state.window, time.monotonic()
        if self.stopped is not None or not window.records:
            return
        if now_s - self._window_since_s < self.state.policy.window.seconds_max:
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
        value = self.outside.signer.seal("Tick", record)
        self._tick = self.outside.writer.append(
            updates_topic(self._task, self.region), value, partition=self.partition
        )

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


def divergence(tail: Aggregate, ours: str) -> IntegrityProblem:
    """Two folds of one log that differ: FLV-3002."""
    return IntegrityProblem(
        "FLV-3002",
        f"divergence: aggregate {tail.sequence} of {tail.region}[{tail.partition}] is {tail.sha256[:12]}, "
        f"we have {ours[:12]}",
        hint="two workers folded one log differently: run `fluvial audit` to see which is right, and stop the other",
    )


def read_aggregate(record: LogRecord, trust: Trust, task: str, region: str) -> Aggregate | None:
    """The aggregate in a record, if a worker of this region signed it for this task; None, and a warning, otherwise."""
    where = f"{record.topic}[{record.partition}]@{record.offset}"
    try:
        envelope = open_envelope(record.value or b"")
    except CodecError as error:
        log.warning("ignored %s: %s", where, error)
        return None
    signer = authenticate(envelope, record.timestamp_ms, trust)
    authentic = getattr(signer, "role", None) is Role.WORKER and envelope.kind == "RegionalAggregate"
    if not authentic or getattr(signer, "region", None) != region:
        log.warning("ignored %s: not signed by a worker of %s", where, region)
        return None
    aggregate = aggregate_of(envelope.record, envelope.payload)
    if (aggregate.task, aggregate.slot) != (task, (region, record.partition)):
        log.warning(
            "ignored %s: it is for %s[%d] of %s", where, aggregate.region, aggregate.partition, aggregate.task
        )
        return None
    return aggregate
