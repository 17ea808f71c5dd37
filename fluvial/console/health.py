"""Health as the worst of its parts: what is known of a task, judged by rules that are all in this file. Pure.

- A source that does not answer is bad; one not asked yet is unknown.
- A partition whose oldest record waits over 10 s and whose lag does not fall is warn, over 60 s bad.
- A head older than 3 times its usual interval while updates arrive, and enough of them count since for another version,
  is warn, 10 times bad.
- An evaluator whose oldest waiting version is over a minute old is warn, and so is one whose newest version has no
  evaluation.
- A process that is gone is bad for merger and worker, warn for an evaluator. A region with records waiting and no
  worker is bad.
- Under half of the updates accepted is warn. A partition that stopped is bad, and an audit that found differences.
- A task with versions that nobody works on any more, and in which nothing waits, is finished, which is ok.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fluvial.console.mends import Place, mend_document
from fluvial.reading.evaluations import Evaluated

Level = Literal["ok", "unknown", "warn", "bad"]

LAG_SECONDS_WARN: Final = 10.0
LAG_SECONDS_BAD: Final = 60.0
INTERVALS_WARN: Final = 3.0
INTERVALS_BAD: Final = 10.0
INTERVAL_SECONDS_MIN: Final = 2.0
"""A head is never late before 3 times this, however quick its versions were."""
ACCEPT_RATIO_WARN: Final = 0.5
EVALUATION_SECONDS_WARN: Final = 60.0
UPDATES_JUDGED_MIN: Final = 10
"""Of fewer updates no ratio is judged."""

_WORSE: Final[dict[Level, int]] = {"ok": 0, "unknown": 1, "warn": 2, "bad": 3}
_WORDS: Final[dict[Level, str]] = {"ok": "healthy", "unknown": "unknown", "warn": "strained", "bad": "broken"}


@dataclass(frozen=True, slots=True)
class Part:
    """One part's health; ``page`` is where its details are."""

    name: str
    level: Level
    word: str
    reason: str
    page: str

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "level": self.level,
            "word": self.word,
            "reason": self.reason,
            "page": self.page,
        }


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """One region: its workers' states, whether any has joined (None: not known), and its worst lag.

    ``gone`` are the names of workers that do not answer, ``stopped`` is what workers say of partitions that stopped.
    """

    region: str
    worker_states: Sequence[str]
    members: int | None
    lag_records: int | None
    lag_seconds: float | None
    trend: str
    gone: Sequence[str] = ()
    stopped: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is judged. Seconds are None where they are not known; ``interval_seconds`` is usual between versions.

    ``metric`` is what the newest version reached, in words; "" where it was not evaluated. ``gone`` are (role, name) of
    processes that do not answer. ``evaluated`` is None where it is not known. ``disproved`` is the audit that found
    differences: (version, how many, when in ms).
    """

    kafka_problem: str = ""
    store_problem: str = ""
    kafka_asked: bool = True
    store_asked: bool = True
    head: int | None = None
    age_seconds: float | None = None
    interval_seconds: float | None = None
    updates_arrive: bool = False
    updates_judged: int = 0
    accept_ratio: float | None = None
    merger_states: Sequence[str] = ()
    evaluator_states: Sequence[str] = ()
    regions: Sequence[RegionFacts] = field(default_factory=tuple)
    metric: str = ""
    evaluated: Evaluated | None = None
    task: str = ""
    gone: Sequence[tuple[str, str]] = ()
    disproved: tuple[int, int, int] | None = None
    at_ms: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether nobody works and nothing waits: no merger, in no region a worker, and every record judged."""
        return (
            not self.merger_states
            and bool(self.regions)
            and all(
                not one.worker_states and one.members == 0 and one.lag_records == 0 for one in self.regions
            )
        )

    @property
    def finished(self) -> bool:
        """Whether it is at rest and has versions."""
        return self.at_rest and bool(self.head)


def health_of(facts: Facts, command: str = "fluvial") -> dict[str, Any]:
    """The one word, the worst part and why, and all parts, each with what mends it. ``command`` calls ``fluvial``."""
    parts = [
        _source("kafka", facts.kafka_problem, asked=facts.kafka_asked),
        _source("store", facts.store_problem, asked=facts.store_asked),
        _merger(facts),
        *(_region(one, finished=facts.finished) for one in facts.regions),
        _acceptance(facts),
        _evaluator(facts),
        *_audit(facts),
    ]
    merger = parts[2]
    worst = max(parts, key=lambda part: _WORSE[part.level])  # the first of the worst, in this order
    shown = merger if worst.level == "ok" else worst
    return {
        "word": "finished" if worst.level == "ok" and facts.finished else _WORDS[worst.level],
        "level": worst.level,
        "part": shown.name,
        "reason": shown.reason,
        "parts": [part.document() | {"mend": _mend(part, facts, command)} for part in parts],
    }


def _mend(part: Part, facts: Facts, command: str) -> dict[str, Any] | None:
    """What mends a part; None where there is nothing to mend."""
    if part.level == "ok":
        return None
    region = next((one for one in facts.regions if part.name == f"region {one.region}"), None)
    gone = region.gone if region is not None else [name for role, name in facts.gone if role == part.name]
    version = facts.disproved[0] if facts.disproved else None
    kind, _, name = part.name.partition(" ")
    place = Place(command=command, task=facts.task, region=name, gone=gone, version=version)
    return mend_document(kind, part.word, part.reason, place)


def source_level(problem: str, *, asked: bool) -> Level:
    """The level of Kafka or the store."""
    if not asked:
        return "unknown"
    return "bad" if problem else "ok"


def _source(name: str, problem: str, *, asked: bool) -> Part:
    level = source_level(problem, asked=asked)
    word = {"ok": "answers", "unknown": "not asked yet"}.get(level, "away")
    return Part(name, level, word, problem if level == "bad" else f"{name} {word}", "#/flow")


def _merger(facts: Facts) -> Part:
    page = "#/versions"
    if facts.head is None:
        return Part("merger", "unknown", "unknown", "the head is not known yet", page)
    age = facts.age_seconds
    said = f"version {facts.head}" + ("" if age is None else f" is {_seconds(age)} old")
    states = set(facts.merger_states)
    if "gone" in states and not states & {"ready", "starting"}:
        return Part("merger", "bad", "gone", f"the merger does not answer; {said}", page)
    interval = facts.interval_seconds
    if age is not None and interval is not None and facts.updates_arrive:
        usual = max(interval, INTERVAL_SECONDS_MIN)
        late = f"{said}, usually a version takes {_seconds(interval)}, and updates arrive"
        if age > INTERVALS_BAD * usual:
            return Part("merger", "bad", "stuck", late, page)
        if age > INTERVALS_WARN * usual:
            return Part("merger", "warn", "late", late, page)
    if facts.finished:
        return Part("merger", "ok", "finished", _last(facts), page)
    if not states:
        return Part("merger", "unknown", "not seen", f"no merger runs on this machine; {said}", page)
    return Part("merger", "ok", "merges", said, page)


def _last(facts: Facts) -> str:
    """How many versions there are, how long ago the last was made, and what it reached."""
    made = "1 version" if facts.head == 1 else f"{facts.head} versions"
    when = "" if facts.age_seconds is None else f", the last {_seconds(facts.age_seconds)} ago"
    reached = f", {facts.metric}" if facts.metric else ""
    return f"{made}{when}{reached}; nobody works on it, and nothing waits"


def _region(one: RegionFacts, *, finished: bool) -> Part:
    level: Level
    name, page = f"region {one.region}", "#/flow"
    states = set(one.worker_states)
    if "gone" in states:
        gone = sum(1 for state in one.worker_states if state == "gone")
        of = len(one.worker_states)
        said = "its worker does not answer" if of == 1 else f"{gone} of its {of} workers: no answer"
        return Part(name, "bad", "worker gone", said, page)
    if one.stopped:
        return Part(name, "bad", "stopped", "; ".join(one.stopped), page)
    if one.lag_records is None:
        return Part(name, "unknown", "unknown", "how far it is, is not known yet", page)
    if one.lag_records and not one.members and not states & {"ready", "starting"}:
        return Part(name, "bad", "no worker", f"{_records(one.lag_records)}, and no worker has joined", page)
    lag = one.lag_seconds or 0.0
    if lag > LAG_SECONDS_WARN and one.trend != "falling":
        level = "bad" if lag > LAG_SECONDS_BAD else "warn"
        return Part(name, level, "lags", f"its oldest record waits {_seconds(lag)}, {one.trend}", page)
    if not states and not one.members:
        level = "ok" if finished else "unknown"
        return Part(
            name, level, "ended" if finished else "not seen", "no worker has joined, and nothing waits", page
        )
    return Part(
        name, "ok", "keeps up", f"its oldest record waits {_seconds(lag)}" if lag else "nothing waits", page
    )


def _records(count: int) -> str:
    return "1 record waits" if count == 1 else f"{count} records wait"


def _acceptance(facts: Facts) -> Part:
    page, ratio = "#/refused", facts.accept_ratio
    if facts.finished:
        return Part(
            "updates", "ok", "ended", f"{facts.updates_judged} updates judged in the last minute", page
        )
    if ratio is None or facts.updates_judged < UPDATES_JUDGED_MIN:
        return Part("updates", "ok", "few", f"{facts.updates_judged} updates judged in the last minute", page)
    if ratio < ACCEPT_RATIO_WARN:
        return Part(
            "updates", "warn", "refused", f"only {ratio:.0%} of the last minute's updates count", page
        )
    return Part("updates", "ok", "accepted", f"{ratio:.0%} of the last minute's updates count", page)


def _evaluator(facts: Facts) -> Part:
    page, states = "#/versions", set(facts.evaluator_states)
    if "gone" in states and "ready" not in states:
        return Part("evaluator", "warn", "gone", "the evaluator does not answer", page)
    evaluated, head = facts.evaluated, facts.head
    if evaluated is not None and evaluated.without:
        return Part("evaluator", "warn", "failing", _without_evaluation(evaluated), page)
    if evaluated is not None and head is not None and evaluated.version < head and not facts.finished:
        behind = head - max(0, evaluated.version)
        waits = (facts.age_seconds or 0.0) + (behind - 1) * (facts.interval_seconds or 0.0)
        said = f"version {head - behind + 1} waits for its evaluation for {_seconds(waits)}, of {behind} that wait"
        if waits > EVALUATION_SECONDS_WARN and (states or evaluated.version >= 0):
            return Part("evaluator", "warn", "behind", said, page)
    if not states:
        return Part("evaluator", "ok", "none", "no evaluator runs on this machine", page)
    return Part("evaluator", "ok", "evaluates", "it follows the versions", page)


def _without_evaluation(evaluated: Evaluated) -> str:
    versions = (
        f"version {evaluated.version} has"
        if evaluated.without == 1
        else f"the {evaluated.without} newest versions have"
    )
    shown = f" {evaluated.error_id}" if evaluated.error_id else ""
    return f"{versions} no evaluation: {evaluated.problem.replace('_', ' ')}{shown}"


def _audit(facts: Facts) -> list[Part]:
    """A part only where something differs: that an audit is missing is no fault."""
    if facts.disproved is None:
        return []
    version, differences, ended_ms = facts.disproved
    found = "a difference" if differences == 1 else f"{differences} differences"
    when = _seconds(max(0.0, (facts.at_ms - ended_ms) / 1000))
    return [
        Part(
            "audit", "bad", "differs", f"the audit of version {version} found {found}, {when} ago", "#/audit"
        )
    ]


def _seconds(seconds: float) -> str:
    if seconds < 90:  # noqa: PLR2004 (where minutes begin to read better)
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"  # noqa: PLR2004 (a digit less)
    if seconds < _TWO_HOURS_S:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < _TWO_DAYS_S else f"{seconds / 86400:.0f} days"


_TWO_HOURS_S: Final = 7200.0
_TWO_DAYS_S: Final = 172_800.0
