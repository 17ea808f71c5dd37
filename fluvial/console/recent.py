"""What was followed of one task since the console looks at it, in bounded counters and rings.

Written by the follower's thread, read by any other, both under ``lock``. All of it may be lost: the topics have it.
A record that is none of what its topic holds is counted in ``strays``, and nothing else happens.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from fluvial.console.bounded import Bins, Newest
from fluvial.console.devices import Devices
from fluvial.console.limits import (
    EVALUATIONS_KEPT,
    OPEN_RECORDS_MAX,
    REFUSALS_KEPT,
    SERIES_SECONDS,
    SERIES_STEP_SECONDS,
    STALENESS_KEPT,
    TEXT_CHARACTERS_MAX,
    UPDATES_KEPT,
    WINDOWS_KEPT,
)
from fluvial.reading.evaluations import problem_in
from fluvial.reading.verdicts import finite
from schemas.metrics import PROBLEM, PROBLEM_ID
from schemas.refusals import Standing, standing_of
from schemas.task_metric import ACCURACY, LOSS, metric_in, values_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.server.aggregates import Aggregate, Slot
    from schemas.manifests import Metric


class Placed(NamedTuple):
    """A verdict, where it counts and when it was written."""

    number: int
    slot: Slot
    verdict: Verdict
    timestamp_ms: int


@dataclass(slots=True)
class SlotFacts:
    """One partition. ``folded_to`` is one past the highest offset judged, ``sealed_to`` past the last one in a window.

    ``newest`` is that window.

    ``open_times`` are (offset, ms) of verdicts not yet in a window; ``window_times`` (sequence, ms) of newest windows.
    """

    folded_to: int = -1
    sealed_to: int = 0
    windows: int = 0
    newest: Aggregate | None = None
    duplicates: int = 0
    open_times: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=OPEN_RECORDS_MAX))
    window_times: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=OPEN_RECORDS_MAX))

    @property
    def open_records(self) -> int:
        """Judged and in no window yet."""
        return max(0, self.folded_to - self.sealed_to) if self.folded_to >= 0 else 0

    def open_since_ms(self) -> int | None:
        """When the oldest record of the open window was judged; None while it is empty."""
        return next((at_ms for offset, at_ms in self.open_times if offset >= self.sealed_to), None)

    def window_since_ms(self, cursor: int) -> int | None:
        """When the first window from sequence ``cursor`` on was published."""
        return next((at_ms for sequence, at_ms in self.window_times if sequence >= cursor), None)


class Cost(NamedTuple):
    """What devices of one window cost."""

    total: float
    bytes_up: int
    device_seconds: float
    accepted: int


@dataclass(slots=True)
class Recent:
    """Facts about one task; ``slots`` are its partitions.

    ``canaries`` are refusals of canaries by region, which are in no other count; ``version_canaries`` by version.
    """

    slots: dict[Slot, SlotFacts]
    since_ms: int = field(default_factory=lambda: round(time.time() * 1000))
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    strays: int = 0
    changes: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    canaries: Counter[str] = field(default_factory=Counter)
    bins: dict[str, Bins] = field(default_factory=dict)
    staleness: deque[int] = field(default_factory=lambda: deque(maxlen=STALENESS_KEPT))
    refusals: deque[Placed] = field(default_factory=lambda: deque(maxlen=REFUSALS_KEPT))
    updates: Newest[str, tuple[Slot, int]] = field(default_factory=lambda: Newest(UPDATES_KEPT))
    devices: Devices = field(default_factory=Devices)
    evaluations: Newest[int, dict[str, Any]] = field(default_factory=lambda: Newest(EVALUATIONS_KEPT))
    own: Newest[int, dict[str, float]] = field(default_factory=lambda: Newest(EVALUATIONS_KEPT))
    named: Metric | None = None
    committed_ms: Newest[int, int] = field(default_factory=lambda: Newest(EVALUATIONS_KEPT))
    version_seconds: Newest[int, float] = field(default_factory=lambda: Newest(EVALUATIONS_KEPT))
    version_canaries: Newest[int, int] = field(default_factory=lambda: Newest(EVALUATIONS_KEPT))
    costs: Newest[tuple[str, int, int], dict[int, Cost]] = field(default_factory=lambda: Newest(WINDOWS_KEPT))
    currencies: set[str] = field(default_factory=set)
    cost_by_region: dict[str, list[float]] = field(default_factory=dict)
    cost_by_cohort: dict[str, list[float]] = field(default_factory=dict)
    _numbers: int = 0

    def __post_init__(self) -> None:
        for region in {slot[0] for slot in self.slots}:
            self.bins[region] = Bins(SERIES_SECONDS, SERIES_STEP_SECONDS)

    def stray(self) -> None:
        """A record that is none."""
        with self.lock:
            self.strays += 1

    def add_verdict(self, slot: Slot, position: int, verdict: Verdict, timestamp_ms: int) -> None:
        """Take a verdict from ``position`` of its topic; one that came before counts once.

        Every offset has a verdict and duplicates only add records, so one at a position below its offset was planted.
        """
        with self.lock:
            facts = self.slots[slot]
            if not 0 <= verdict.offset <= position:
                self.strays += 1
                return
            facts.duplicates = position - verdict.offset
            if verdict.offset < facts.folded_to:
                return
            self.changes += 1
            facts.folded_to = verdict.offset + 1
            if verdict.offset >= facts.sealed_to:
                facts.open_times.append((verdict.offset, timestamp_ms))
            self.since_ms = min(self.since_ms, timestamp_ms)
            if verdict.update_id:
                self.updates.put(verdict.update_id[:TEXT_CHARACTERS_MAX], (slot, verdict.offset))
            match standing_of(verdict.outcome, slot[0], verdict.device_id):
                case Standing.CANARY:
                    self.canaries[slot[0]] += 1
                case Standing.ACCEPTED | Standing.REFUSED:
                    self._count(slot, verdict, timestamp_ms)
                case Standing.UNJUDGED:
                    pass

    def _count(self, slot: Slot, verdict: Verdict, timestamp_ms: int) -> None:
        region, accepted = slot[0], verdict.outcome == ACCEPTED
        outcome = verdict.outcome[:TEXT_CHARACTERS_MAX]
        known = (region, outcome) in self.outcomes or len(self.outcomes) < _OUTCOMES_MAX
        self.outcomes[region, outcome if known else _OTHER] += 1
        self.bins[region].add(timestamp_ms, accepted=accepted)
        if accepted:
            self.staleness.append(verdict.staleness)
        else:
            self._numbers += 1
            self.refusals.append(Placed(self._numbers, slot, verdict, timestamp_ms))
        if verdict.device_id:
            device_id = verdict.device_id[:TEXT_CHARACTERS_MAX]
            self.devices.add(region, device_id, timestamp_ms, verdict.outcome)

    def add_window(self, aggregate: Aggregate, timestamp_ms: int) -> None:
        """Take an authentic aggregate; one that came before changes nothing."""
        with self.lock:
            facts = self.slots[aggregate.slot]
            if aggregate.sequence < facts.windows:
                return
            self.changes += 1
            facts.windows = aggregate.sequence + 1
            facts.newest = aggregate
            facts.sealed_to = aggregate.next_offset
            facts.window_times.append((aggregate.sequence, timestamp_ms))
            while facts.open_times and facts.open_times[0][0] < facts.sealed_to:
                facts.open_times.popleft()

    def add_metric(self, document: Mapping[str, Any]) -> None:
        """Take a record of the metrics topic. Raises ValueError or TypeError for one that is none."""
        kind = document.get("kind")
        with self.lock:
            if kind == "evaluation":
                version = _whole(document, "version")
                if version not in self.evaluations:
                    self.evaluations.put(version, numbers_of(document))
                    self.named = metric_in(document) or self.named
                    self.own.put(version, own_numbers(document, self.named))
                    self.changes += 1
            elif kind == "version":
                self._add_version(document)
            elif kind == "region_minute":
                self._add_cost(document)

    def _add_version(self, document: Mapping[str, Any]) -> None:
        version, at_ms = _whole(document, "version"), _whole(document, "at_ms")
        seconds, canaries = finite(document.get("seconds")), document.get("canaries")
        if version not in self.committed_ms:
            self.committed_ms.put(version, at_ms)
            self.changes += 1
        if seconds is not None and version not in self.version_seconds:
            self.version_seconds.put(version, seconds)
        if isinstance(canaries, int) and canaries > 0 and version not in self.version_canaries:
            self.version_canaries.put(version, canaries)

    def _add_cost(self, document: Mapping[str, Any]) -> None:
        region = document.get("region")
        partition, sequence = _whole(document, "partition"), _whole(document, "sequence")
        minute_ms, total = _whole(document, "minute_ms"), finite(document.get("cost_total"))
        if not isinstance(region, str) or (region, partition) not in self.slots or total is None:
            raise ValueError("not a minute of this task")
        key = (region, partition, sequence)
        minutes = self.costs.get(key)
        if minutes is None:
            self.costs.put(key, minutes := {})
        if minute_ms in minutes or len(minutes) >= _MINUTES_MAX:
            return
        cost = Cost(
            total,
            _whole(document, "bytes_up"),
            finite(document.get("device_seconds")) or 0.0,
            _whole(document, "accepted"),
        )
        minutes[minute_ms] = cost
        currency = document.get("currency")
        if isinstance(currency, str) and currency and len(self.currencies) < _CURRENCIES_MAX:
            self.currencies.add(currency[:_CURRENCY_CHARACTERS_MAX])
        _add(self.cost_by_region, region, cost)
        for name in document:
            found = _COHORT.fullmatch(name)
            if found is not None:
                _add(self.cost_by_cohort, found[1], _cohort_cost(document, found[1]))

    @property
    def currency(self) -> str | None:
        """The unit of all costs that were told; None before one was, "mixed units" where price lists differ."""
        return "mixed units" if len(self.currencies) > 1 else next(iter(self.currencies), None)

    def window_cost(self, region: str, partition: int, sequence: int) -> float | None:
        """What a window's updates cost; None where its minutes were not followed."""
        minutes = self.costs.get((region, partition, sequence))
        return None if minutes is None else sum(cost.total for cost in minutes.values())


def _add(sums: dict[str, list[float]], key: str, cost: Cost) -> None:
    known = sums.setdefault(key, [0.0, 0, 0.0, 0])
    for index, value in enumerate(cost):
        known[index] += value


def _cohort_cost(document: Mapping[str, Any], cohort: str) -> Cost:
    """What devices of one cohort brought in a minute; a number that is not there is 0."""

    def number(name: str) -> float:
        return finite(document.get(f"cohort_{cohort}_{name}")) or 0.0

    return Cost(
        number("cost_total"), int(number("bytes_up")), number("device_seconds"), int(number("accepted"))
    )


def own_numbers(document: Mapping[str, Any], named: Metric | None) -> dict[str, float]:
    """The task's own numbers of an evaluation: of so many as are bounded here, the metric and the loss first."""
    judges = {LOSS, ACCURACY if named is None else named.name}
    own = sorted(values_of(document).items(), key=lambda one: (one[0] not in judges, one[0]))
    return dict(own[:_OWN_NUMBERS_MAX])


def numbers_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation that JSON has, by name, and why it has none, where it says so.

    Of so many and so long names as are bounded here.
    """
    numbers = {name: finite(value) for name, value in document.items() if isinstance(value, int | float)}
    short = {name: value for name, value in sorted(numbers.items()) if len(name) <= _NAME_CHARACTERS_MAX}
    why = {PROBLEM: problem} if (problem := problem_in(document)) else {}
    error_id = document.get(PROBLEM_ID)
    why |= {PROBLEM_ID: error_id[:_ID_CHARACTERS]} if why and isinstance(error_id, str) else {}
    return dict(list(short.items())[:_NUMBERS_MAX]) | why


_COHORT: Final = re.compile(r"cohort_([0-9]|[1-9][0-9])_accepted")
_MINUTES_MAX: Final = 1000
_CURRENCIES_MAX: Final = 4
_CURRENCY_CHARACTERS_MAX: Final = 8
_NUMBERS_MAX: Final = 300
_OWN_NUMBERS_MAX: Final = 32
_NAME_CHARACTERS_MAX: Final = 100
_ID_CHARACTERS: Final = 8
_OUTCOMES_MAX: Final = 200
_OTHER: Final = "other"


def _whole(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{name} is {str(value)[:40]!r}, not a whole number")
    return value
