"""What goes up from an edge: each window that its log closes, in sequence, once.

Windows come here as the fold gives them, again from the log's beginning after a restart. How far the log above has come
with them is read there, by the fold's own rule: what is authentic and follows the window before it. All behind that is
sent again, be it that it never arrived, or that it was refused, as with a certificate that had ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.errors import UsageProblem
from aggregation.fold.events import EdgeAggregate
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, RecordReader, RecordWriter
from backends.outages import retry_through_outage
from schemas.edges import KIND, edge_record
from schemas.envelope import kind_of
from schemas.records import decode_record, revoke_in
from stream_apps.credentials import require_valid

if TYPE_CHECKING:
    from concurrent.futures import Future

    from aggregation.fold.events import WindowClosed
    from aggregation.policy import Policy
    from backends.clock import Clock
    from backends.log import LogRecord, Position
    from schemas.certificates import Trust
    from schemas.envelope import Signer
    from schemas.windows import EncodedWindow
    from stream_apps.edge.place import EdgeStand
    from stream_apps.edge.progress import Progress

TOO_LARGE: Final = "FLV-6463"

log = logging.getLogger("fluvial.edge")


@dataclass(slots=True)
class Chain:
    """An edge's chain in the log above: its next window, the hash of its last, and what was barred of names there."""

    edge: str
    sequence: int = 0
    last_sha256: str = ""
    revoked: set[str] = field(default_factory=set)

    def hear(self, record: LogRecord, trust: Trust, policy: Policy) -> None:
        """Take one record of that log, as the fold does."""
        match kind_of(record.value or b""):
            case "Revoke":
                found = revoke_in(record.value, record.timestamp_ms, trust)
                self.revoked.update(found.named if found is not None else ())
            case "EdgeAggregate":
                event = decode_record(record.value, record.timestamp_ms, trust, policy)
                if isinstance(event, EdgeAggregate) and event.edge == self.edge:
                    self._take(event)
            case _:
                pass  # no window of ours, and nothing that bars one

    def _take(self, event: EdgeAggregate) -> None:
        window, names = event.window, {self.edge, event.signer or event.certificate_serial}
        ours = (window.task, window.region, window.partition) == (event.task, self.edge, 0)
        follows = (window.sequence, window.previous_sha256) == (self.sequence, self.last_sha256)
        if ours and follows and not names & self.revoked:
            self.sequence, self.last_sha256 = window.sequence + 1, window.sha256


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
        self._identity = trust.identify(signer.certificate)
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._progress = progress
        self._chain = Chain(stand.edge)
        self.sent = 0
        """Windows that this process has published."""

    def begin(self, policy: Policy) -> None:
        """See how far our chain has come above. ``policy``: one under which edges are known."""
        retry_through_outage(
            f"see which windows of {self._stand.edge} stand above",
            partial(self._look, policy),
            clock=self._clock,
        )

    def _look(self, policy: Policy) -> None:
        note, stand = self._progress.load(), self._stand
        low, end = self._reader.bounds(stand.parent_updates, stand.parent_partition)
        if note.written > end:  # that log is another one than was noted
            note = type(note)(note.task_sha256, 0, 0)
        chain, start = (
            Chain(stand.edge, note.read, note.last_sha256, set(note.revoked)),
            max(low, note.written),
        )
        for record in (
            self._reader.read(stand.parent_updates, stand.parent_partition, start, end) if start < end else ()
        ):
            chain.hear(record, self._trust, policy)
        self._chain = chain
        self._progress.save(chain.sequence, end, chain.last_sha256, tuple(sorted(chain.revoked)))

    def publish(self, closed: WindowClosed, encoded: EncodedWindow, bytes_max: int) -> None:
        """Send one window up, unless it stands there, and wait for its acknowledgement, as long as it takes.

        UsageProblem FLV-6463 where the log above takes no record of that size: ``bytes_max`` is the policy's.
        """
        one = encoded.aggregate
        if one.sequence < self._chain.sequence:
            return
        require_valid(self._identity)
        sums = None
        if one.sum_sha256:
            sums = np.frombuffer(encoded.objects[one.sum_sha256], dtype="<i8")
        value = self._signer.sign(KIND, edge_record(one, encoded.payload, closed.model_sha256, sums))
        if len(value) > bytes_max:
            raise _too_large(self._stand, len(value), bytes_max)
        crash_point("edge.before-window")
        self._acknowledged(value)
        crash_point("edge.after-window")
        self.sent += 1
        log.debug("%s published window %d: %d accepted", self._stand.edge, one.sequence, one.accepted)

    def _acknowledged(self, value: bytes) -> None:
        stand = self._stand
        sent: Future[Position] = self._writer.append(
            stand.parent_updates, value, key=stand.edge.encode(), partition=stand.parent_partition
        )
        flush = partial(self._writer.flush, FLUSH_TIMEOUT_S)
        retry_through_outage(f"publish a window of {stand.edge}", flush, clock=self._clock)
        sent.result(timeout=0)  # raises what the broker said, if it refused the record


def _too_large(stand: EdgeStand, size: int, bytes_max: int) -> UsageProblem:
    return UsageProblem(
        TOO_LARGE,
        f"a window of {stand.edge} takes a record of {size} bytes, updates.bytes_max allows {bytes_max}",
        where=f"{stand.parent_updates}[{stand.parent_partition}]",
        hint="make the task anew with a larger updates.bytes_max: up to 8 bytes for each parameter",
    )
