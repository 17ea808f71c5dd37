"""What comes down to an edge: the barriers, revokes and announcements of the log above, byte for byte, once, in order.

An announcement is copied after its barrier: above, it was written after it, so whoever reads the end of the
announcements first and that of the log then has every barrier that they speak of.

The edge reads all of the partition above that hears it, for a barrier may stand anywhere in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.fold.events import Barrier, Revoke
from aggregation.regions import is_within, root_of
from backends.clock import Clock
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, RecordReader, RecordWriter
from backends.outages import retry_through_outage
from schemas.envelope import kind_of
from schemas.objects import sha256_hex
from schemas.records import Announcement, announcement_in, barrier_in, revoke_in

if TYPE_CHECKING:
    from backends.log import LogRecord
    from schemas.certificates import Trust
    from stream_apps.edge.place import EdgeStand
    from stream_apps.edge.progress import Progress

LOOK_EVERY_S: Final = 0.2
COPIES_AT_ONCE_MAX: Final = 1000
"""Records that are copied before it is waited for their acknowledgement."""

log = logging.getLogger("fluvial.edge")


@dataclass(frozen=True, slots=True)
class Copied:
    """What is copied: from a topic's partition to a topic of one partition, the records that ``is_ours``."""

    source: str
    partition: int
    target: str
    kinds: frozenset[str]
    is_ours: Callable[[LogRecord], bool]
    progress: Progress


@dataclass(frozen=True, slots=True)
class Ways:
    """``reader`` reads above, ``own`` reads the edge's own topics, ``writer`` writes them."""

    reader: RecordReader
    own: RecordReader
    writer: RecordWriter
    clock: Clock


class Downlink:
    """Copies for one edge while it has its log."""

    def __init__(
        self, stand: EdgeStand, trust: Trust, ways: Ways, *, barriers: Progress, announcements: Progress
    ) -> None:
        self._stand = stand
        self._trust = trust
        self._log = _Copying(
            ways,
            Copied(
                stand.parent_updates,
                stand.parent_partition,
                stand.updates,
                frozenset({"Barrier", "Revoke"}),
                self._obeyed,
                barriers,
            ),
        )
        self._news = _Copying(
            ways,
            Copied(
                stand.parent_models,
                0,
                stand.models,
                frozenset({"ModelAnnouncement", "Revoke"}),
                self._announced,
                announcements,
            ),
        )

    def look(self) -> int:
        """Copy what is there; how many records that were. Blocks, and waits for outages to end."""
        announced = self._log.waiting("see what was announced", self._news.end)
        copied = self._log.through(self._log.waiting("see where the log ends", self._log.end))
        return copied + self._news.through(announced)

    def run(self, stopped: threading.Event) -> None:
        """Look again and again until told to stop."""
        while not stopped.is_set():
            self.look()
            stopped.wait(LOOK_EVERY_S)

    def _obeyed(self, record: LogRecord) -> bool:
        task, edge = self._stand.genesis.task, self._stand.edge
        found = barrier_in(record.value, record.timestamp_ms, self._trust)
        if isinstance(found, Barrier):
            return found.task == task and is_within(edge, found.region)
        return self._revokes(record)

    def _announced(self, record: LogRecord) -> bool:
        genesis = self._stand.genesis
        found = announcement_in(record.value, record.timestamp_ms, self._trust)
        if isinstance(found, Announcement):
            return (found.task, found.region) == (genesis.task, root_of(self._stand.edge, genesis.regions))
        return self._revokes(record)

    def _revokes(self, record: LogRecord) -> bool:
        found = revoke_in(record.value, record.timestamp_ms, self._trust)
        return isinstance(found, Revoke) and found.task == self._stand.genesis.task


class _Copying:
    """One source and its copy. Where a fresh process does not know, it looks what stands in the copy already."""

    def __init__(self, ways: Ways, what: Copied) -> None:
        self._ways = ways
        self._what = what
        self._next: int | None = None
        self._standing: set[str] = set()

    def waiting(self, what: str, action: Callable[[], int]) -> int:
        """An answer, as long as it takes."""
        return retry_through_outage(f"{what} of {self._what.source}", action, clock=self._ways.clock)

    def end(self) -> int:
        """Where the source ends."""
        return self._ways.reader.bounds(self._what.source, self._what.partition)[1]

    def through(self, end: int) -> int:
        """Copy what stands below ``end``; how many records that were."""
        if self._next is None:
            self._next = self.waiting("see what stands already", self._begin)
        copied = 0
        while self._next < end:
            copied += self.waiting("copy records", lambda: self._some(end))
        return copied

    def _begin(self) -> int:
        """Where to go on reading; takes in what stands in the copy of what comes from there on."""
        what, note = self._what, self._what.progress.load()
        low, end = self._ways.own.bounds(what.target, 0)
        first, source_end = self._ways.reader.bounds(what.source, what.partition)
        if note.written > end or note.read > source_end:  # a log is another one than was noted
            text = "%s or %s was cut or made anew: both are looked through again"
            log.warning(text, what.source, what.target)
            note = type(note)(note.task_sha256, 0, 0)
        start = max(low, note.written)
        for record in self._ways.own.read(what.target, 0, start, end) if start < end else ():
            if kind_of(record.value or b"") in what.kinds:
                self._standing.add(sha256_hex(record.value or b""))
        return max(note.read, first)

    def _some(self, end: int) -> int:
        what, writer = self._what, self._ways.writer
        at, copied = self._next or 0, 0
        for record in self._ways.reader.read(what.source, what.partition, at, end):
            value = record.value or b""
            at = record.offset + 1
            if kind_of(value) in what.kinds and what.is_ours(record):
                name = sha256_hex(value)
                if name not in self._standing:
                    writer.append(what.target, value, partition=0)
                    self._standing.add(name)  # anybody may write it into the log above once more
                    copied += 1
            if copied >= COPIES_AT_ONCE_MAX:
                break
        if copied:
            crash_point("edge.before-copy")
            writer.flush(FLUSH_TIMEOUT_S)
            crash_point("edge.after-copy")
        self._note(at)
        return copied

    def _note(self, at: int) -> None:
        if self._next != at:
            self._next = at
            self._what.progress.save(at, self._ways.own.bounds(self._what.target, 0)[1])


def run_in_thread(
    link: Downlink, stopped: threading.Event, failed: Callable[[Exception], None]
) -> threading.Thread:
    """Run a downlink on a thread of its own; ``failed`` is told what ended it: a full disk, a defect, a refusal."""

    def run() -> None:
        try:
            link.run(stopped)
        except Exception as error:  # noqa: BLE001 (else the thread ends, and nobody hears of it)
            failed(error)

    thread = threading.Thread(target=run, name="downlink", daemon=True)
    thread.start()
    return thread
