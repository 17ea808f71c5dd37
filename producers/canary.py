"""A canary: a device whose every update has a known verdict, so that its absence says that a region does not work.

It publishes well-formed, rightly signed updates on a version that will never exist. They are decoded, authenticated
and judged like every other, the verdict has to be ``future_base``, and the model never changes. A device's certificate
decides its partition, so one canary tries one partition of its region.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aggregation.codecs import DEFAULT_CODEC
from aggregation.errors import FluvialError
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import RejectionReason
from backends.clock import SYSTEM_CLOCK, Clock
from backends.log import Position
from backends.observer import UNOBSERVED, Observer
from backends.outages import retry_through_outage
from producers.sdk.bases import Base
from producers.sdk.updates import UPDATE_ID_HEX, Author, Contribution, Publication, honest_record, seal_update
from schemas.avro import CodecError
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader
    from backends.kafka.writing import LogWriter
    from backends.log import LogRecord

BASE_VERSION: Final = 2**31 - 1
"""The version that a canary's updates claim to be trained on."""
EXPECTED: Final = RejectionReason.FUTURE_BASE.outcome
EVERY_S: Final = 10.0
OBJECTIVE_S: Final = 5.0
LATE, WRONG_VERDICT, UNPUBLISHED = "late", "wrong_verdict", "unpublished"
REASONS: Final = (LATE, WRONG_VERDICT, UNPUBLISHED)
_RECENT_VERDICTS_MAX: Final = 4096


def canary_update(author: Author, created_at_ms: int) -> Publication:
    """One signed update of zeros on ``BASE_VERSION``; a different update id for each time."""
    genesis = author.genesis
    layout = genesis.tensor_layout
    zeros = np.zeros(layout.parameters, dtype=np.float32)
    base = Base(BASE_VERSION, genesis.model_sha256, zeros, genesis.first_policy)
    outcome = Contribution(zeros, 1, 0.0)
    record = honest_record(
        author, base, layout, codec=DEFAULT_CODEC, outcome=outcome, created_at_ms=created_at_ms
    )
    text = f"{record['update_id']}/{created_at_ms}"
    record["update_id"] = hashlib.sha256(text.encode()).hexdigest()[:UPDATE_ID_HEX]
    return author.publication(seal_update(author, record), record["update_id"])


@dataclass(frozen=True, slots=True)
class Ping:
    """What became of one update of a canary. ``reason`` is empty when all is well, else one of ``REASONS``."""

    region: str
    partition: int
    offset: int | None
    outcome: str
    seconds: float
    reason: str
    detail: str

    @property
    def place(self) -> str:
        """``eu[0]@123``, the offset only where it is known."""
        offset = "" if self.offset is None else f"@{self.offset}"
        return f"{self.region}[{self.partition}]{offset}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "region": self.region,
            "partition": self.partition,
            "offset": self.offset,
            "expected": EXPECTED,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 4),
            "ok": not self.reason,
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(slots=True)
class _UnderWay:
    what: Publication
    position: Future[Position]
    began_s: float


@dataclass(slots=True)
class Tally:
    """How many updates were published, and what became of them."""

    published: int = 0
    judged: int = 0
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"published": self.published, "judged": self.judged, "failed": dict(self.failed)}


class _StoppedError(Exception):
    """The canary was stopped while it waited for the broker."""


class Canary:
    """Publishes every ``every_s`` and expects each verdict within ``objective_s`` of handing the update over.

    ``seconds`` of a ``Ping`` is what a device sees: publish to verdict read, the way through Kafka included twice.
    """

    def __init__(
        self,
        author: Author,
        writer: LogWriter,
        reader: LogReader,
        *,
        every_s: float = EVERY_S,
        objective_s: float = OBJECTIVE_S,
        observer: Observer = UNOBSERVED,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._author = author
        self._writer = writer
        self._reader = reader
        self._every_s = every_s
        self._objective_s = objective_s
        self._observer = observer
        self._clock = clock
        self._stopped = False
        self._under_way: list[_UnderWay] = []
        self._verdicts: OrderedDict[int, Verdict] = OrderedDict()
        self.tally = Tally()
        self.region = author.region
        self.partition = author.publication(b"", "").partition

    def stop(self) -> None:
        """``run`` ends within a quarter of a second; what is under way then is not counted."""
        self._stopped = True

    def run(self, *, once: bool = False) -> Iterator[Ping]:
        """What became of each update, as soon as it is known; with ``once`` of one update only.

        An outage makes updates ``unpublished`` or ``late``, and is waited out before the first one, without ``once``.
        """
        topic = verdicts_topic(self._author.genesis.task, self.region)
        try:
            start = (
                self._end_of(topic)
                if once
                else retry_through_outage(f"read {topic}", lambda: self._end_of(topic))
            )
        except _StoppedError:
            return
        due_s = self._clock.monotonic()
        for record in self._reader.follow({(topic, self.partition): start}):
            if self._stopped:
                return
            self._observer.beat()
            if record is not None:
                self._remember(record)
            self._writer.poll()
            for ping in list(self._known()):
                yield ping
                if once or self._stopped:
                    return
            if self._clock.monotonic() >= due_s and not (once and self.tally.published):
                self._publish()
                # An update that is late does not make the next ones come in a burst.
                due_s = max(due_s + self._every_s, self._clock.monotonic())

    def _end_of(self, topic: str) -> int:
        if self._stopped:
            raise _StoppedError
        return self._reader.bounds(topic, self.partition)[1]

    def _publish(self) -> None:
        what = canary_update(self._author, round(self._clock.time() * 1000))
        began_s = self._clock.monotonic()
        try:
            position = self._writer.append(what.topic, what.value, key=what.key, partition=what.partition)
        except FluvialError as error:
            position = Future()
            position.set_exception(error)
        self.tally.published += 1
        self._observer.canary_published(self.region)
        self._under_way.append(_UnderWay(what, position, began_s))

    def _remember(self, record: LogRecord) -> None:
        try:
            verdict = decode_verdict(record.value or b"")
        except CodecError:
            return  # anybody may have written it, and it judges nothing
        # A worker that comes back may write a verdict again; the same, or the fold is broken and the audit says so.
        self._verdicts.setdefault(verdict.offset, verdict)
        if len(self._verdicts) > _RECENT_VERDICTS_MAX:
            self._verdicts.popitem(last=False)

    def _known(self) -> Iterator[Ping]:
        """The updates under way whose end is known now; they are under way no more."""
        for one in tuple(self._under_way):
            seconds = self._clock.monotonic() - one.began_s
            offset, problem = _acknowledged(one.position)
            verdict = None if offset is None else self._verdicts.get(offset)
            if verdict is not None:
                yield self._end(one, offset, seconds, verdict)
            elif problem or seconds > self._objective_s:
                yield self._end(one, offset, seconds, None, problem)

    def _end(
        self,
        one: _UnderWay,
        offset: int | None,
        seconds: float,
        verdict: Verdict | None,
        problem: str = "",
    ) -> Ping:
        self._under_way.remove(one)
        outcome = "" if verdict is None else verdict.outcome
        reason, detail = "", ""
        if offset is None:
            reason = UNPUBLISHED
            detail = problem or f"not acknowledged by the broker within {self._objective_s:g} s"
        elif verdict is None:
            reason, detail = LATE, f"no verdict within {self._objective_s:g} s"
        elif outcome != EXPECTED:
            reason, detail = WRONG_VERDICT, f"expected {EXPECTED}, got {outcome}: {verdict.detail}"
        elif seconds > self._objective_s:
            reason, detail = (
                LATE,
                f"its verdict took {seconds:.2f} s, the objective is {self._objective_s:g} s",
            )
        if verdict is not None:
            self.tally.judged += 1
            self._observer.canary_judged(self.region, seconds)
        if reason:
            self.tally.failed[reason] += 1
            self._observer.canary_failed(self.region, reason)
        return Ping(self.region, self.partition, offset, outcome, seconds, reason, detail)


def _acknowledged(position: Future[Position]) -> tuple[int | None, str]:
    """The offset once the broker has the record; the reason once it is known that it has not."""
    if not position.done():
        return None, ""
    error = position.exception()
    if error is not None:
        return None, getattr(error, "message", str(error))
    return position.result().offset, ""
