"""What the loops tell whoever watches them: metrics, records for analysts, traces.

The fold, the merge and the log do not depend on an observer; it sees what happens and changes nothing. Its only way out
is a record's Kafka headers, which no signature covers and no fold reads. The rules for every implementation:

- It is called where the work is done, so it is quick: no input or output, no waiting.
- Calls for one partition come one at a time; calls for different partitions, or of merger and writer, may come from
  different threads.
- One that raises has a defect: ``Observers`` says so once, and calls it no more. The pipeline goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aggregation.errors import FluvialError
from aggregation.fold.events import Event, Verdict, WindowClosed
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import Headers, LogRecord, Position
from schemas.manifests import Manifest

log = logging.getLogger("fluvial")


@dataclass(slots=True)
class LastScrape:
    """Between a process that ends for good and who has yet to see why: ``awaited`` until ``shown``."""

    awaited: bool = False
    shown: bool = False


class Observer:
    """Sees everything and does nothing: implementations override what they care about.

    A method that returns headers may add some to the record that the caller writes next. ``slot`` is
    (region, partition).
    """

    # -- regional worker

    def assigned(self, region: str, partitions: Collection[int]) -> None:
        """This process has these partitions from now on, and no others of the region."""

    def resumed(self, slot: Slot, state: PartitionState) -> None:
        """A partition goes on from ``state``."""

    def unvouched(self, slot: Slot, verdicts: int) -> None:
        """So many verdicts stand for offsets that the partition's log does not have, and no worker vouches for them."""

    def folding(self, slot: Slot, record: LogRecord) -> None:
        """A record is about to be decoded and folded."""

    def judged(self, slot: Slot, record: LogRecord, event: Event, verdict: Verdict) -> Headers:
        """A record has its verdict; the headers go with the verdict."""
        return ()

    def folded(self, slot: Slot, record: LogRecord, state: PartitionState) -> None:
        """The state after a record, whatever it was."""

    def window_closed(self, slot: Slot, closed: WindowClosed, state: PartitionState) -> Headers:
        """A window closed; the headers go with its aggregate."""
        return ()

    def window_published(self, slot: Slot, closed: WindowClosed, aggregate: Aggregate) -> None:
        """A window's verdicts, objects and aggregate are where they belong."""

    def window_contradicted(self, slot: Slot, ours: Aggregate) -> None:
        """Another window than ours of one sequence is signed by somebody with a worker's key."""

    def stopped(self, slot: Slot, error: FluvialError) -> None:
        """A partition stopped; the others go on."""

    # -- merger

    def window_taken(self, record: LogRecord, aggregate: Aggregate) -> None:
        """An authentic aggregate that is not merged yet came in."""

    def waiting(self, windows: int, updates: int, updates_wanted: int) -> None:
        """What waits to be merged, and how many updates the policy wants before it does not wait any longer."""

    def window_disproved(self, slot: Slot, lie: Aggregate, serial: str) -> None:
        """A window that the certificate of that serial signed is not what its log gives: it is barred here."""

    def lie_merged(self, slot: Slot, lie: Aggregate) -> None:
        """A version holds a window that is not what its log gives: it was found out too late."""

    def merging(self, version: int, chosen: Collection[Aggregate]) -> None:
        """These windows are about to become a version."""

    def committing(self, version: int) -> None:
        """The version is calculated, and its manifest about to be written."""

    def committed(self, manifest: Manifest, chosen: Collection[Aggregate], stored_bytes: int) -> Headers:
        """A version of ours is committed and its files are stored; the headers go with barriers and announcements."""
        return ()

    def race_lost(self, version: int) -> None:
        """Another merger committed that version first."""

    def version_refused(self, version: int, error: FluvialError) -> None:
        """What the store has as that version is not what its windows give: this merger waits and signs nothing."""

    def announced(self, version: int) -> None:
        """Barriers and announcements of a version are acknowledged everywhere."""

    def merger_stopped(self, error: BaseException, last_scrape: LastScrape) -> None:
        """This merger ends for a reason that no retry removes; it may stay a little for the ``last_scrape``."""

    def guide_named(self, version: int, guide_version: int) -> None:
        """A version names a guide of that version; the one is never below the other."""

    def unguided(self, version: int) -> None:
        """A version of a guided policy names no guide, or waits for one."""

    def guide_refused(self, reason: str) -> None:
        """A record of the guides topic is not taken: ``stream_apps.merger.guides.REFUSALS`` has the reasons."""

    # -- guardian

    def guided(self, version: int, seconds: float) -> None:
        """The guide of a version was published; ``seconds`` is how long loading, training and publishing took."""

    def guide_failed(self, version: int, error: BaseException) -> None:
        """No guide could be made of a version; the next one is tried."""

    # -- evaluator

    def recalled(self, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """The evaluations that stand in the metrics topic from before this process, the newest, ascending by version.

        They come once, before ``evaluated``. Their fields: ``stream_apps.evaluator.published_evaluations.Evaluation``.
        """

    def evaluated(self, record: Mapping[str, Any], seconds: float) -> None:
        """An evaluation was published; ``seconds`` is how long loading and evaluating the version took."""

    # -- devices

    def publishing(self, region: str, codec: str, value_bytes: int) -> Headers:
        """An update is about to be published; the headers go with it."""
        return ()

    def acknowledged(self, region: str, seconds: float) -> None:
        """The broker has an update, so long after it was handed to the producer."""

    def placed(self, headers: Headers, position: Position | None) -> None:
        """The update that carries what ``publishing`` returned stands at ``position``; None: not acknowledged."""

    def unacknowledged(self, region: str, error: BaseException) -> None:
        """An update was not acknowledged, and may or may not stand in the log."""

    def round_failed(self, region: str, error_id: str, devices_failing: int) -> None:
        """A device's round failed; the last round of so many of the fleet's devices did."""

    def round_succeeded(self, devices_failing: int) -> None:
        """A device that had failed made an update again; so many still fail."""

    # -- canaries and auditors

    def canary_published(self, region: str) -> None:
        """A canary handed an update to its producer."""

    def canary_judged(self, region: str, seconds: float) -> None:
        """A canary read the verdict on its update, so long after it was handed over."""

    def canary_failed(self, region: str, reason: str) -> None:
        """A canary did not get what it expects: ``late``, ``wrong_verdict`` or ``unpublished``."""

    def audited(self, findings: int, versions: int, seconds: float) -> None:
        """An audit ended: its differences, how many versions it recomputed, how long it took."""

    # -- every process

    def adopted(self, version: int, regions: Collection[str]) -> None:
        """A merger (whose task has these regions), an evaluator or a guardian goes on from a version."""

    def beat(self) -> None:
        """The process' loop turns; called about once a second, whatever is away."""

    def ending(self) -> None:
        """The process was told to stop, and finishes what is under way."""

    # -- the ways out

    def produced(self, topic: str, seconds: float, error: FluvialError | None, records: int = 1) -> None:
        """The broker answered for a record of ours; ``error`` when it did not take it.

        For ``records`` that went together it is told once, at the last answer.
        """

    def stored(self, operation: str, seconds: float, error: FluvialError | None) -> None:
        """The object store answered ``get``, ``put``, ``create``, ``exists`` or ``list``."""


UNOBSERVED: Final = Observer()


class Observers(Observer):
    """Several as one. Headers are put together in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)
        self._calls: dict[str, tuple[tuple[Observer, Callable[..., Headers | None]], ...]] = {}

    def _calls_of(self, name: str) -> tuple[tuple[Observer, Callable[..., Headers | None]], ...]:
        """Who does something in this method: most do in a few, and the fold calls four for each record."""
        found = self._calls.get(name)
        if found is None:
            nothing = getattr(Observer, name)
            found = self._calls[name] = tuple(
                (one, getattr(one, name))
                for one in self._observers
                if getattr(type(one), name) is not nothing
            )
        return found


def _fan_out(name: str) -> Callable[..., Headers]:
    def call(self: Observers, *arguments: Any) -> Headers:
        headers: Headers = ()
        for observer, method in self._calls_of(name):
            try:
                more = method(*arguments)
            except Exception:
                log.exception("%s is a defect in %s: it watches no more", type(observer).__name__, name)
                self._observers.remove(observer)
                self._calls.clear()
            else:
                if more:
                    headers = (*headers, *more)
        return headers

    call.__name__ = name
    return call


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _name, _fan_out(_name))
