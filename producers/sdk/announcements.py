"""Following ``fl.<task>.models``: which version is the newest for each region, as the merger signed it.

Announcements may come late or twice, and anybody with access to the broker may write there: a follower goes by a
merger's certificate and signature only, and keeps the highest version. What a merger announces behind the Revoke of its
certificate counts for nothing; what it announced before, only until another merger has announced a version.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from aggregation.errors import TimeoutProblem
from aggregation.fold.events import Revoke
from aggregation.regions import is_edge, root_of
from backends.kafka.reading import LogReader
from backends.log import LogRecord
from backends.outages import retry_through_outage
from producers.sdk.pace import VERSIONS_REMEMBERED
from schemas.announcing import Announcers
from schemas.records import Announcement, Flaw, Unverified
from schemas.topics import edge_models_topic, models_topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from backends.settings import Settings
    from schemas.manifests import Genesis

MERGERS_MAX: Final = 64
"""Mergers' certificates of which the newest announcement is kept, by region."""
UNVERIFIED_SAID_MAX: Final = 3
"""So many bad records are named; a flood of them is only counted, and stands in the error when a wait ends in vain."""

log = logging.getLogger("fluvial")


class _ClosedError(Exception):
    """The follower was closed while it waited for the broker."""


class Announcements:
    """A background follower of one task's announcements; one serves any number of devices of all regions.

    Where ``region`` is an edge, it follows what that has copied, for the devices below it.

    ``on_news`` is called on the follower's thread whenever a region got another version. Close it, or use ``with``.
    An error that ends the follower is raised again by the next call of ``latest`` or ``wait_for``.
    """

    def __init__(
        self,
        settings: Settings,
        genesis: Genesis,
        on_news: Callable[[], None] | None = None,
        *,
        region: str = "",
    ) -> None:
        self._settings = settings
        self._genesis = genesis
        below = is_edge(region, genesis.regions)
        self._topic = edge_models_topic(genesis.task, region) if below else models_topic(genesis.task)
        self._announcers = Announcers(genesis.trust, genesis.task)
        self._on_news = on_news
        self._latest: dict[str, Announcement] = {}
        self._by_merger: dict[str, dict[str, Announcement]] = {}
        self._times_ms: dict[str, dict[int, int]] = {}
        self._caught_up = False
        self._unverified = 0
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="announcements", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop following; takes up to a quarter of a second."""
        self._closed.set()
        self._thread.join()

    def latest(self, region: str) -> Announcement | None:
        """The newest announcement to ``region``; None before the first, and while the past is being read."""
        with self._changed:
            self._raise_error()
            return self._latest.get(self._root(region)) if self._caught_up else None

    def times_ms(self, region: str) -> tuple[tuple[int, int], ...]:
        """(version, LogAppendTime in ms) of the last versions that were announced to ``region``, ascending."""
        with self._changed:
            return tuple(sorted(self._times_ms.get(region, {}).items()))

    def wait_for(self, region: str, version: int, timeout_s: float) -> Announcement:
        """The newest announcement of at least ``version``; TimeoutProblem (FLV-2502) when none comes in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._raise_error()
                latest = self._latest.get(self._root(region))
                if self._caught_up and latest is not None and latest.version >= version:
                    return latest
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise self.none_came(region, version, timeout_s)
                self._changed.wait(left_s)

    def none_came(self, region: str, version: int, timeout_s: float) -> TimeoutProblem:
        """FLV-2502, ready to raise."""
        latest = self._latest.get(self._root(region))
        newest = f"the newest is version {latest.version}" if latest else "there is none at all"
        if self._unverified:
            newest += f" ({self._unverified} records there are not a merger's announcements)"
        return TimeoutProblem(
            "FLV-2502",
            f"version {version} or newer was not announced to region {region} within {timeout_s:g} s: {newest}",
            where=f"topic {self._topic}",
            hint=f"is a merger running? start one with `fluvial merger --task {self._genesis.task}`",
        )

    def _root(self, region: str) -> str:
        """The region to which versions are announced: of an edge, the one above it."""
        return root_of(region, self._genesis.regions) or region

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _follow(self) -> None:
        topic = self._topic
        try:
            with LogReader(self._settings, f"fluvial-announcements-{self._genesis.task}") as reader:
                start, past_end = retry_through_outage(f"read {topic}", lambda: self._bounds(reader, topic))
                self._catch_up(start, past_end)
                for record in reader.follow({(topic, 0): start}):
                    if self._closed.is_set():
                        return
                    if record is not None:
                        self._take(record)
                        self._catch_up(record.offset + 1, past_end)
        except _ClosedError:
            return
        except Exception as error:  # noqa: BLE001 (handed to whoever asks next, on their thread)
            with self._changed:
                self._error = error
                self._changed.notify_all()
            if self._on_news is not None:
                self._on_news()

    def _bounds(self, reader: LogReader, topic: str) -> tuple[int, int]:
        if self._closed.is_set():
            raise _ClosedError
        return reader.bounds(topic, 0)

    def _catch_up(self, next_offset: int, past_end: int) -> None:
        """Answers begin once the announcements of the past are read: the newest of them, not the first."""
        if not self._caught_up and next_offset >= past_end:
            with self._changed:
                self._caught_up = True
                self._changed.notify_all()
            if self._on_news is not None:
                self._on_news()

    def _take(self, record: LogRecord) -> None:
        found = self._announcers.read(record.value, record.timestamp_ms)
        if isinstance(found, Revoke):
            for region in list(self._by_merger):
                self._choose(region)
            return
        problem = _problem_of(found, self._genesis)
        if isinstance(found, Unverified) or problem:
            self._unverified += 1
            if self._unverified <= UNVERIFIED_SAID_MAX:
                log.warning("disregarding %s[0]@%d: %s", record.topic, record.offset, problem)
            return
        known = self._by_merger.setdefault(found.region, {})
        before = known.get(found.merger)
        if before is not None and before.version >= found.version:
            return
        known[found.merger] = found
        self._remember_time(found, record.timestamp_ms)
        while len(known) > MERGERS_MAX:
            del known[min(known, key=lambda merger: known[merger].version)]
        self._choose(found.region)

    def _remember_time(self, found: Announcement, timestamp_ms: int) -> None:
        with self._changed:
            times = self._times_ms.setdefault(found.region, {})
            times.setdefault(found.version, timestamp_ms)
            while len(times) > VERSIONS_REMEMBERED:
                del times[min(times)]

    def _choose(self, region: str) -> None:
        """The highest version of a merger whose certificate was not revoked; of another one where there is none."""
        known = self._by_merger[region]
        good = [one for merger, one in known.items() if merger not in self._announcers.revoked]
        newest = max(good or known.values(), key=lambda one: one.version)
        with self._changed:
            if self._latest.get(region) == newest:
                return
            self._latest[region] = newest
            self._changed.notify_all()
        if self._on_news is not None:
            self._on_news()


def _problem_of(found: Announcement | Unverified, genesis: Genesis) -> str:
    """Why a follower of this task passes it over; "" if it does not."""
    if isinstance(found, Announcement):
        if found.belongs_to(genesis.task, genesis.regions):
            return ""
        return f"it is for {found.region[:64]!r} of the task {found.task[:64]!r}"
    return f"a {found.detail} does not belong here" if found.flaw is Flaw.WRONG_KIND else found.detail
