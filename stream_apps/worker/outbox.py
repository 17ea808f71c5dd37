"""What the fold decided and is not true yet: verdicts on their way, closed windows.

The order of a window's effects, each awaited before the next:

1. its verdicts are acknowledged;
2. its objects are stored under their hashes;
3. its aggregate record is published;
4. of an edge's log: it is handed on to the log above.

Verdicts wait for each other: those of records that came together are handed to the producer at once, when all of them
are folded, and in any case before anything is waited for.

An effect stays here until it has happened. A caller may be cancelled while it waits (Faust cancels agents when
partitions move): what it waited for goes on, and the next call waits for it first. Doing an effect twice is harmless.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aggregation.fold.events import Verdict, WindowClosed
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, Headers, Outgoing, Together
from backends.outages import retry_through_outage
from schemas.verdicts import encode_verdict
from schemas.windows import EncodedWindow, encode_state, seal_window
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.vouching import Vouching

VERDICTS_UNACKNOWLEDGED_MAX: Final = 4096
"""A partition's verdicts on their way to the broker; more wait, so that an outage cannot fill the memory."""
VERDICTS_TOGETHER_MAX: Final = 64
"""Verdicts that wait for others before they are handed to the producer."""

HandedOn = Callable[[WindowClosed, EncodedWindow], None]
"""What else is done with each window, in sequence; on a thread, it may block. Who folds again hands it on again."""

log = logging.getLogger("fluvial.worker")


@dataclass(slots=True)
class _Window:
    """A closed window whose effects are not true yet; it is encoded and hashed on the thread that publishes it."""

    closed: WindowClosed
    state: PartitionState
    snapshot: bytes
    headers: Headers
    encoded: EncodedWindow | None = None

    def seal(self) -> EncodedWindow:
        """What to store and to publish; made once, for each window is a link of a chain."""
        if self.encoded is None:
            self.encoded = seal_window(self.state, self.closed, self.snapshot)
        return self.encoded


class Outbox:
    """One partition's effects. ``published`` holds verdicts that stood in the topic before us, by offset."""

    def __init__(self, place: PartitionPlace, handed_on: HandedOn | None = None) -> None:
        self.published: dict[int, bytes] = {}
        self.standing_windows: dict[int, frozenset[str]] = {}
        """The hashes of windows that stood in the topic before us, by sequence: ours need not be published again."""
        self._place = place
        self._handed_on = handed_on
        self._vouching = Vouching(place)
        self._windows: deque[_Window] = deque()
        self._waiting: list[Outgoing] = []
        self._sent: deque[Together] = deque()
        self._under_way: asyncio.Task[None] | None = None

    def clear(self) -> None:
        """Forget everything: all of it follows from the log again."""
        self.published = {}
        self.standing_windows = {}
        self._windows = deque()  # new ones: what is under way on a thread goes on with the old
        self._waiting = []
        self._sent = deque()
        self._under_way = None

    @property
    def unacknowledged(self) -> int:
        """Verdicts that are not known to stand in their topic."""
        return len(self._waiting) + sum(one.unsafe for one in self._sent)

    @property
    def is_idle(self) -> bool:
        """Whether nothing has to be made true, or waited for, before the next record is folded."""
        return not self._windows and self._under_way is None

    # -- taking effects in

    def add_verdict(self, verdict: Verdict, headers: Headers, state: PartitionState) -> None:
        """Send a verdict on its way, unless it stands there from before a restart."""
        value = encode_verdict(verdict, self._place.context.trust.rules)
        self._vouching.add(verdict, value)
        standing = self.published.pop(verdict.offset, None)
        if standing is not None:
            if standing == value:
                return
            _warn_of_another(self._place, verdict, state)
        self._waiting.append(Outgoing(verdict.device_id.encode(), value, headers))
        if len(self._waiting) >= VERDICTS_TOGETHER_MAX:
            self.send()

    def send(self) -> None:
        """Hand the verdicts that wait to the producer, a head with the last. Raises what that refuses at once.

        Nothing waits while something is under way: that began by handing them over.
        """
        if self._under_way is not None:
            return
        while self._sent and not self._sent[0].unsafe:
            self._sent.popleft()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if self._vouching.is_due():
                last = waiting[-1]
                waiting[-1] = replace(last, headers=(*last.headers, *self._vouching.head()))
            self._append(waiting)

    def add_window(self, closed: WindowClosed, headers: Headers, state: PartitionState) -> None:
        """Keep a window that closed until its effects are true; ``state`` is as the fold left it."""
        self._windows.append(_Window(closed, state, encode_state(state), headers))

    def _append(self, verdicts: list[Outgoing]) -> None:
        place = self._place
        sent = place.context.writer.append_together(place.verdicts, verdicts, partition=place.partition)
        self._sent.append(sent)
        for _, problem in sent.refused:
            raise problem

    # -- making them true

    async def make_room(self) -> None:
        """Wait for the broker when too many verdicts are on their way."""
        if self.unacknowledged >= VERDICTS_UNACKNOWLEDGED_MAX:
            await self.flush_verdicts()

    async def flush_verdicts(self) -> None:
        """Wait until every verdict is acknowledged, as long as it takes."""
        await self._finish()
        self.send()
        self._begin_flush()
        await self._finish()

    def send_refused_again(self) -> None:
        """Begin to send verdicts again that the broker refused. Waits for nothing: the next call does.

        They are sent again with their window at the latest; but where nothing comes any more, no window closes. Only
        while no other call is under way.
        """
        if self._under_way is None and any(one.refused and not one.unanswered for one in self._sent):
            self._begin_flush()

    async def drain(self) -> None:
        """Make every closed window's effects true, in order, as long as it takes."""
        await self._finish()
        if self._windows:
            self.send()
            self._begin(self._publish_windows())
            await self._finish()

    def _begin_flush(self) -> None:
        place = self._place
        self._begin(place.retry(f"publish the verdicts of {place}", self._flush_verdicts))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._under_way = asyncio.create_task(work)

    async def _finish(self) -> None:
        """Wait for what is under way. A cancelled caller leaves it running for the next one."""
        work = self._under_way
        if work is None:
            return
        try:
            await asyncio.shield(work)
        finally:
            if work.done() and self._under_way is work:
                self._under_way = None

    async def _publish_windows(self) -> None:
        windows = self._windows
        while windows and windows is self._windows:  # else they were forgotten meanwhile
            await asyncio.to_thread(self._publish_window, windows[0])
            windows.popleft()

    # -- blocking, on a thread

    def _publish_window(self, window: _Window) -> None:
        place, context, encoded = self._place, self._place.context, window.seal()
        crash_point("worker.before-verdicts")
        retry_through_outage(f"publish the verdicts of {place}", self._flush_verdicts, clock=context.clock)
        crash_point("worker.after-verdicts")
        for data in encoded.objects.values():
            put = partial(context.store.put_object, data)
            retry_through_outage(f"store a window of {place}", put, clock=context.clock)
        crash_point("worker.after-objects")
        if not self._stands(encoded.aggregate):
            self._publish_aggregate(encoded, window.headers)
        if self._handed_on is not None:
            self._handed_on(window.closed, encoded)
        context.observer.window_published(place.slot, window.closed, encoded.aggregate)
        one = encoded.aggregate
        log.debug(
            "%s published window %d: %d accepted",
            place,
            one.sequence,
            one.accepted,
            extra={
                "region": place.region,
                "partition": place.partition,
                "offset": one.next_offset - 1,
                "version": one.version,
                "sequence": one.sequence,
            },
        )
        crash_point("worker.after-aggregate")

    def _stands(self, ours: Aggregate) -> bool:
        """Whether a window is published already. Where another of its sequence is, that is said."""
        standing = self.standing_windows.pop(ours.sequence, frozenset())
        for other in sorted(standing - {ours.sha256}):
            log.error(
                "error[FLV-3002]: %s: window %d is %s, and somebody with a worker's key signed %s\n"
                "hint: the log decides, and mergers fold it again: see docs/runbooks/diverging-workers.md",
                self._place,
                ours.sequence,
                ours.sha256[:12],
                other[:12],
            )
            self._place.context.observer.window_contradicted(self._place.slot, ours)
        return ours.sha256 in standing

    def _publish_aggregate(self, encoded: EncodedWindow, headers: Headers) -> None:
        place, context = self._place, self._place.context
        published = context.writer.append(
            place.aggregates,
            context.signer.sign_payload("RegionalAggregate", encoded.payload),
            key=str(place.partition).encode(),
            partition=place.partition,
            headers=headers,
        )
        flush = partial(context.writer.flush, FLUSH_TIMEOUT_S)
        retry_through_outage(f"publish a window of {place}", flush, clock=context.clock)
        published.result(timeout=0)  # raises what the broker said, if it refused the record

    def _flush_verdicts(self) -> None:
        """Wait for all; send those again that the broker refused. Raises what it says if it refuses one once more."""
        writer = self._place.context.writer
        writer.flush(FLUSH_TIMEOUT_S)
        refused = [record for one in self._sent for record, _ in one.refused]
        self._sent.clear()
        if not refused:
            return
        self._append(refused)
        writer.flush(FLUSH_TIMEOUT_S)
        for _, problem in self._sent[-1].refused:
            raise problem


def _warn_of_another(place: PartitionPlace, verdict: Verdict, state: PartitionState) -> None:
    log.warning(
        "%s: another verdict stands for offset %d; it is not ours",
        place,
        verdict.offset,
        extra=place.fields(verdict.offset, state),
    )
