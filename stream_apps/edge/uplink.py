"""What goes up from an edge: each window that its log closes, in sequence, once.

Windows come here as the fold gives them, again from the log's beginning after a restart. What stands in the log above
already, signed by this edge and with the same content, is not sent again.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.errors import UsageProblem
from aggregation.fold.events import EdgeAggregate
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, Position, RecordReader, RecordWriter
from backends.outages import retry_through_outage
from schemas.edges import KIND, edge_record
from schemas.envelope import kind_of
from schemas.records import decode_record

if TYPE_CHECKING:
    from concurrent.futures import Future

    from aggregation.fold.events import WindowClosed
    from aggregation.policy import Policy
    from backends.clock import Clock
    from schemas.certificates import Trust
    from schemas.envelope import Signer
    from schemas.windows import EncodedWindow
    from stream_apps.edge.place import EdgeStand
    from stream_apps.edge.progress import Progress

TOO_LARGE: Final = "FLV-6463"

log = logging.getLogger("fluvial.edge")


class Uplink:
    """Publishes an edge's windows. ``reader`` and ``writer`` reach the log above, ``signer`` is the edge's own key."""

    def __init__(
        self,
        stand: EdgeStand,
        trust: Trust,
        signer: Signer,
        *,
        reader: RecordReader,
        writer: RecordWriter,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._stand = stand
        self._trust = trust
        self._signer = signer
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._progress = progress
        self._sent_below = 0
        self._standing: set[tuple[int, str]] = set()
        self.sent = 0
        """Windows that this process has published."""

    def begin(self, policy: Policy) -> None:
        """See what of ours stands above, as far as nobody noted it. ``policy``: one under which edges are known."""
        retry_through_outage(
            f"see which windows of {self._stand.edge} stand above",
            partial(self._look, policy),
            clock=self._clock,
        )

    def _look(self, policy: Policy) -> None:
        note, stand = self._progress.load(), self._stand
        low, end = self._reader.bounds(stand.parent_updates, stand.parent_partition)
        known = note.written <= end  # else that log is another one than was noted
        self._sent_below, start = (note.read, max(low, note.written)) if known else (0, low)
        self._standing.clear()
        for record in (
            self._reader.read(stand.parent_updates, stand.parent_partition, start, end) if start < end else ()
        ):
            if kind_of(record.value or b"") != KIND:
                continue
            event = decode_record(record.value, record.timestamp_ms, self._trust, policy)
            if isinstance(event, EdgeAggregate) and event.edge == stand.edge:
                self._standing.add((event.window.sequence, event.window.sha256))

    def publish(self, closed: WindowClosed, encoded: EncodedWindow, bytes_max: int) -> None:
        """Send one window up, unless it stands there, and wait for its acknowledgement, as long as it takes.

        UsageProblem FLV-6463 where the log above takes no record of that size: ``bytes_max`` is the policy's.
        """
        one = encoded.aggregate
        if one.sequence < self._sent_below or (one.sequence, one.sha256) in self._standing:
            return
        sums = None
        if one.sum_sha256:
            sums = np.frombuffer(encoded.objects[one.sum_sha256], dtype="<i8")
        value = self._signer.sign(KIND, edge_record(one, encoded.payload, closed.model_sha256, sums))
        if len(value) > bytes_max:
            raise _too_large(self._stand, len(value), bytes_max)
        crash_point("edge.before-window")
        position = self._acknowledged(value)
        crash_point("edge.after-window")
        self.sent += 1
        self._sent_below = one.sequence + 1
        self._progress.save(self._sent_below, position.offset + 1)
        log.debug("%s published window %d: %d accepted", self._stand.edge, one.sequence, one.accepted)

    def _acknowledged(self, value: bytes) -> Position:
        stand = self._stand
        sent: Future[Position] = self._writer.append(
            stand.parent_updates, value, key=stand.edge.encode(), partition=stand.parent_partition
        )
        flush = partial(self._writer.flush, FLUSH_TIMEOUT_S)
        retry_through_outage(f"publish a window of {stand.edge}", flush, clock=self._clock)
        return sent.result(timeout=0)  # raises what the broker said, if it refused the record


def _too_large(stand: EdgeStand, size: int, bytes_max: int) -> UsageProblem:
    return UsageProblem(
        TOO_LARGE,
        f"a window of {stand.edge} takes a record of {size} bytes, updates.bytes_max allows {bytes_max}",
        where=f"{stand.parent_updates}[{stand.parent_partition}]",
        hint="make the task anew with a larger updates.bytes_max: up to 8 bytes for each parameter",
    )
