"""The follower: one thread that reads a task's metrics, verdicts and aggregates, from a bounded tail on."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from aggregation.errors import FluvialError
from backends.environment import load_settings
from backends.kafka.reading import LogReader
from backends.log import LogRecord
from fluvial.console.limits import AGGREGATES_TAIL, LOOK_S, METRICS_TAIL, VERDICTS_TAIL
from fluvial.console.threads import OpenAgain
from fluvial.reading.replay import authentic_aggregate
from schemas.certificates import Trust
from schemas.metrics import problem_of
from schemas.topics import aggregates_topic, metrics_topic, verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aggregation.server.aggregates import Slot
    from fluvial.console.recent import Recent
    from schemas.manifests import Genesis

_KINDS: Final = (b'"evaluation"', b'"version"', b'"region_minute"')
_JUNK: Final = (ValueError, TypeError, RecursionError, KeyError, OverflowError, FluvialError)
"""What decoding bytes of anybody's making may raise: not Avro, JSON or UTF-8, another form, too deep, too large."""

Place = tuple[str, int]


@dataclass
class Follower:
    """What the follower's thread knows: where each topic goes on, so that opening again loses nothing.

    Until it has ``caught_up`` with the tails, what it counts is the past, and no rate.
    """

    task: str
    genesis: Genesis
    recent: Recent
    trust: Trust = field(init=False)
    next_offsets: dict[Place, int] = field(default_factory=dict)
    caught_up: bool = False

    def __post_init__(self) -> None:
        self.trust = self.genesis.trust
        slots = self.genesis.slots
        self._verdicts: dict[Place, Slot] = {
            (verdicts_topic(self.task, slot[0]), slot[1]): slot for slot in slots
        }
        self._windows: dict[Place, Slot] = {
            (aggregates_topic(self.task, slot[0]), slot[1]): slot for slot in slots
        }
        self._metrics: Place = (metrics_topic(self.task), 0)

    def starts(self, reader: LogReader) -> dict[Place, int]:
        """Where to go on, or the tails' beginnings."""
        tails = dict.fromkeys(self._windows, AGGREGATES_TAIL)
        tails |= dict.fromkeys(self._verdicts, VERDICTS_TAIL) | {self._metrics: METRICS_TAIL}
        found: dict[Place, int] = {}
        for place, tail in tails.items():
            low, high = reader.bounds(*place)
            known = self.next_offsets.get(place)
            found[place] = max(low, high - tail) if known is None or not low <= known <= high else known
            if place in self._verdicts and high == low == 0:
                self._nothing_judged(self._verdicts[place])
        return found

    def at_ends(self, starts: dict[Place, int], ends: dict[Place, int]) -> bool:
        """Whether everything from ``starts`` to ``ends`` was taken."""
        return all(self.next_offsets.get(place, starts[place]) >= end for place, end in ends.items())

    def _nothing_judged(self, slot: Slot) -> None:
        with self.recent.lock:
            facts = self.recent.slots[slot]
            facts.folded_to = max(facts.folded_to, 0)

    def take(self, record: LogRecord) -> None:
        """One record; what is none of its topic's is counted, and nothing else happens."""
        place = (record.topic, record.partition)
        self.next_offsets[place] = record.offset + 1
        if record.value is None:
            return
        try:
            self._take(place, record, record.value)
        except _JUNK:
            self.recent.stray()

    def _take(self, place: Place, record: LogRecord, value: bytes) -> None:
        if place == self._metrics:
            if any(kind in value for kind in _KINDS):
                self.recent.add_metric(_document(value))
        elif place in self._verdicts:
            self.recent.add_verdict(
                self._verdicts[place], record.offset, decode_verdict(value), record.timestamp_ms
            )
        else:
            published = authentic_aggregate(record, self.trust, self.task, self._windows[place])
            if published.aggregate is None:
                raise ValueError(published.problem)
            self.recent.add_window(published.aggregate, record.timestamp_ms)


def _document(value: bytes) -> dict[str, Any]:
    document = msgspec.json.decode(value)
    problem = problem_of(document)
    if problem:
        raise ValueError(problem)
    return dict(document)


@contextlib.contextmanager
def open_follow(
    home: Path, follower: Callable[[], Follower | None], goes_on: Callable[[], bool]
) -> Iterator[Callable[[], int]]:
    """For a ``Looker``: each look takes what comes in about a second, and says how many records that were.

    Raises ``OpenAgain`` while there is nothing to follow yet, and once ``goes_on`` is false.
    """
    known = follower()
    if known is None:
        raise OpenAgain
    settings = load_settings(home)
    with LogReader(settings, f"fluvial-console-{known.task}-follow") as reader:
        starts = known.starts(reader)
        ends = {place: reader.bounds(*place)[1] for place in starts}
        records = reader.follow(starts)

        def follow() -> int:
            taken, end_s = 0, time.monotonic() + LOOK_S
            for record in records:
                if record is not None:
                    known.take(record)
                    taken += 1
                known.caught_up = known.caught_up or known.at_ends(starts, ends)
                if not goes_on():
                    raise OpenAgain
                if time.monotonic() > end_s:
                    break
            return taken

        yield follow
