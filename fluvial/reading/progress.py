"""What is known of a run while it goes on: followed from its topics in a thread, read by views and summary.

Verdicts may stand in their topic twice (a worker that crashed publishes a window's verdicts again), so they
are kept by the offset that they judge; two different verdicts for one offset would break the law of the
system, and are kept apart.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aggregation.errors import FluvialError
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, CONTROL
from backends.kafka.reading import LogReader
from backends.log import LogRecord
from fluvial.reading.evaluations import problem_in
from fluvial.reading.quality import Quality
from fluvial.reading.spending import Costs
from producers.fleet.failures import FailedRounds
from schemas.refusals import Standing, standing_of
from schemas.task_metric import LOSS, metric_in, metric_of, values_of
from schemas.topics import metrics_topic, models_topic, verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from backends.settings import Settings
    from schemas.manifests import Metric

RATE_WINDOW_S: Final = 5.0
_SPARKS: Final = "▁▂▃▄▅▆▇█"


class Place(NamedTuple):
    """One offset of an updates topic."""

    region: str
    partition: int
    offset: int


class Evaluation(NamedTuple):
    """One version on held-out data. ``values``: what the task reports. ``seconds`` since the version before.

    ``problem``: why it was published without an evaluation, as in ``schemas.metrics.PROBLEMS``; "" where it has one.
    """

    version: int
    values: Mapping[str, float]
    seconds: float | None
    problem: str = ""

    @property
    def loss(self) -> float | None:
        """The loss; None where it is no finite number."""
        return self.values.get(LOSS)


class Judged(NamedTuple):
    """A verdict and when it was written, milliseconds since 1970 UTC (the verdict record's LogAppendTime)."""

    verdict: Verdict
    timestamp_ms: int


@dataclass(slots=True)
class RunFacts:
    """Everything that a run has shown so far. Written by one follower, read by any thread under ``lock``.

    ``canaries`` is where canaries' refusals stand, which are in no count.
    """

    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    verdicts: dict[Place, Judged] = field(default_factory=dict)
    conflicts: dict[Place, tuple[Verdict, Verdict]] = field(default_factory=dict)
    canaries: list[Place] = field(default_factory=list)
    duplicates: int = 0
    strays: int = 0
    announced: bool = False
    committed: dict[int, int] = field(default_factory=dict)
    failed_rounds: FailedRounds = field(default_factory=FailedRounds)
    costs: Costs = field(default_factory=Costs)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _named: Metric | None = None
    _recent: deque[float] = field(default_factory=deque, repr=False)

    def add_evaluation(self, record: Mapping[str, Any]) -> None:
        """Take a record of the metrics topic: an evaluation, a version, or what a window cost; others are left out.

        Raises TypeError: it is an evaluation of no version.
        """
        if record.get("kind") == "version":
            self._add_version(record)
        if record.get("kind") != "evaluation":
            with self.lock:
                self.costs.add(record)
            return
        version = record.get("version")
        if not isinstance(version, int) or isinstance(version, bool):
            raise TypeError(f"an evaluation of version {version!r}")
        evaluation = Evaluation(version, values_of(record), _number(record, "seconds"), problem_in(record))
        with self.lock:
            self._named = metric_in(record) or self._named
            self.evaluations[version] = evaluation

    def _add_version(self, record: Mapping[str, Any]) -> None:
        version, accepted = record.get("version"), record.get("accepted")
        if type(version) is int and type(accepted) is int:
            with self.lock:
                self.committed.setdefault(version, accepted)

    def add_stray(self) -> None:
        """Count a record that is none of what its topic holds: anybody who may write there may have left it."""
        with self.lock:
            self.strays += 1

    def add_verdict(self, region: str, partition: int, verdict: Verdict, timestamp_ms: int) -> None:
        """Take a record of a verdicts topic; a repetition counts once, a contradiction is a conflict."""
        place = Place(region, partition, verdict.offset)
        with self.lock:
            known = self.verdicts.get(place)
            if known is not None:
                self.duplicates += 1
                # As text: a score that is NaN equals itself there.
                if repr(known.verdict) != repr(verdict):
                    self.conflicts[place] = (known.verdict, verdict)
                return
            self.verdicts[place] = Judged(verdict, timestamp_ms)
            standing = standing_of(verdict.outcome, region, verdict.device_id)
            if standing is Standing.CANARY:
                self.canaries.append(place)
                return
            self.counts[region, verdict.outcome] += 1
            if standing is not Standing.UNJUDGED:
                self._forget_old(time.monotonic())
                self._recent.append(time.monotonic())

    def version(self) -> int:
        """The newest version that was evaluated."""
        with self.lock:
            return max(self.evaluations, default=0)

    def head(self) -> int:
        """The newest version that was committed, as far as records tell."""
        with self.lock:
            return max(self.version(), max(self.committed, default=0))

    def curve(self) -> list[Evaluation]:
        """The evaluations of versions above 0, ascending."""
        with self.lock:
            return [self.evaluations[version] for version in sorted(self.evaluations) if version > 0]

    def quality(self) -> Quality:
        """The metric, as the evaluator names it, and what every version above 0 reached."""
        with self.lock:
            newest = self.evaluations[self.version()].values if self.evaluations else None
            values = {one.version: one.values for one in self.evaluations.values() if one.version > 0}
            return Quality(metric_of(self._named, newest), values)

    def outcomes(self) -> dict[str, int]:
        """Updates by outcome: accepted first, then the most frequent; without control records and canaries."""
        with self.lock:
            total: Counter[str] = Counter()
            for (_, outcome), count in self.counts.items():
                if outcome != CONTROL:
                    total[outcome] += count
        return dict(sorted(total.items(), key=lambda item: (item[0] != ACCEPTED, -item[1], item[0])))

    def rate(self) -> float:
        """Updates judged per second, over the last ``RATE_WINDOW_S``."""
        with self.lock:
            self._forget_old(time.monotonic())
            return len(self._recent) / RATE_WINDOW_S

    def _forget_old(self, now_s: float) -> None:
        while self._recent and self._recent[0] < now_s - RATE_WINDOW_S:
            self._recent.popleft()

    def missing(self, published: Sequence[Place]) -> list[Place]:
        """Which of these offsets have no verdict yet."""
        with self.lock:
            return [place for place in published if place not in self.verdicts]


class Follower:
    """A thread that reads a task's metrics and verdicts into ``RunFacts``, from the beginning of the topics."""

    def __init__(self, settings: Settings, task: str, partitions: Mapping[str, int], facts: RunFacts) -> None:
        """Follow ``task``, whose regions have so many ``partitions``."""
        self._settings = settings
        self._facts = facts
        self._regions = {verdicts_topic(task, region): region for region in partitions}
        self._metrics = metrics_topic(task)
        self._models = models_topic(task)
        self._starts = {
            (topic, partition): 0
            for topic, region in self._regions.items()
            for partition in range(partitions[region])
        } | {(self._metrics, 0): 0, (self._models, 0): 0}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what ended the thread early, if anything did."""
        if self._error is not None:
            raise self._error

    def _follow(self) -> None:
        try:
            with LogReader(self._settings, "fluvial-progress") as reader:
                for record in reader.follow(self._starts):
                    if record is not None:
                        self._take(record)
                    if self._ended.is_set():
                        return
        except Exception as error:  # noqa: BLE001 (raised again in the main thread, by check())
            self._error = error

    def _take(self, record: LogRecord) -> None:
        if record.topic == self._models:
            self._facts.announced = True
            return
        try:
            self._take_fact(record, record.value or b"")
        except (ValueError, TypeError, RecursionError):  # not JSON, Avro or UTF-8; of another form; too deep
            self._facts.add_stray()

    def _take_fact(self, record: LogRecord, value: bytes) -> None:
        if record.topic == self._metrics:
            fact = json.loads(value)
            if not isinstance(fact, dict):
                raise TypeError("a metric is a JSON object")
            self._facts.add_evaluation(fact)
        else:
            region = self._regions[record.topic]
            self._facts.add_verdict(region, record.partition, decode_verdict(value), record.timestamp_ms)


class Published(NamedTuple):
    """One acknowledged publish, as the fleet's journal has it."""

    place: Place
    device: str
    behaviour: str
    base_version: int
    update_id: str


def read_journal(path: Path) -> list[Published]:
    """Every whole line of a fleet's journal. A last line that a crash cut off is left out.

    Raises FluvialError: FLV-6302, a line is not what the fleet writes.
    """
    return list(_journal_lines(path))


def _journal_lines(path: Path) -> Iterator[Published]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        try:
            entry = json.loads(line)
            place = Place(entry["region"], int(entry["partition"]), int(entry["offset"]))
            yield Published(
                place,
                entry["device"],
                entry["behaviour"],
                int(entry["base_version"]),
                str(entry["update_id"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FluvialError(
                "FLV-6302",
                f"line {number} of the fleet's journal cannot be read: {type(error).__name__}: {error}",
                where=str(path),
                hint="this is a defect unless somebody edited the file: please report it",
            ) from error


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """``values`` as blocks of eight heights between their least and greatest, thinned to ``width`` characters."""
    if not values:
        return ""
    if len(values) > width:
        step = (len(values) - 1) / max(1, width - 1)
        values = [values[round(index * step)] for index in range(width)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_SPARKS[round((value - low) / span * (len(_SPARKS) - 1))] for value in values)


def _number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
