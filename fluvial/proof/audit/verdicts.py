"""Invariant 8 in an audit: a partition's verdicts stand for the offsets that its log has, and say what the fold says.

A verdict is derived from the log and signed by nobody, so a record of a verdicts topic proves nothing about a worker:
whoever may write there can have written it. What a worker did sign is its window, and before it published that, the
window's verdicts were acknowledged. So, below what signed windows cover, the fold's own verdict has to stand in the
topic, whatever else stands there: no stranger can take it away. Hence three findings, none that a stranger can cause:

* FLV-5020: verdicts for offsets that the log does not have, and that a signed window claims all the same;
* FLV-5021: an offset that a signed window covers has no verdict;
* FLV-5022: it has others, and not the one that the fold gives.

Workers vouch for their verdicts by signed heads, which ``vouched`` compares (FLV-5023). All else that is not the
fold's verdict is a *stray*: counted, named, and believed by nobody. Copies of the fold's verdict are harmless. Above
what signed windows cover, nothing is missing yet.

In a task whose verdicts hold a reason's code and values (``RecordRules.verdicts``), bytes are compared. Of a verdict of
the first format all is compared but its words: those are for people, and an older release may have put a library's text
there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import OUTCOMES
from aggregation.fold.rules import RecordRules
from backends.log import RecordReader, TopicReader
from fluvial.proof.audit.findings import BEYOND_LOG, OTHER_VERDICT, UNJUDGED, Findings
from fluvial.proof.audit.strays import ANOTHER, BEYOND, NOT_A_VERDICT, Strays
from fluvial.proof.audit.vouched import VouchedBy, VouchedStretches
from schemas.avro import CodecError
from schemas.verdicts import decode_verdict, encode_verdict
from schemas.vouching import MARK_BYTES, mark_of

MARKS_IN_MEMORY_BYTES_MAX: Final = 16 << 20
"""Of the marks of one partition; more of them lie in the audit's temporary folder."""
VERDICT_BYTES_MAX: Final = 4096
"""A longer record is no verdict of ours, and is not decoded."""
UNSETTLED_MAX: Final = 1000
"""Offsets of which the audit remembers what stands there instead of the right verdict; more are found all the same."""
HEARD_EVERY_RECORDS: Final = 1000

_UNJUDGED, _RIGHT, _OTHER = 0, 1, 2
_OUTCOME_OF: Final = {outcome: number for number, outcome in enumerate(OUTCOMES)}
_ENTRY_BYTES: Final = MARK_BYTES + 1


@dataclass(frozen=True, slots=True)
class VerdictsBound:
    """A partition of a verdicts topic as it stood when the audit began, or why it cannot be read (``absent``)."""

    low: int = 0
    end: int = 0
    absent: str = ""

    def records_from(self, first: int) -> int:
        """How many records there are to look at for the offsets from ``first`` on."""
        return max(0, self.end - max(self.low, first))


@dataclass(slots=True)
class ComparedVerdicts:
    """What the verdicts of one partition came to.

    ``compared`` offsets have the fold's verdict or are findings; ``vouched`` offsets a worker vouches for, rightly;
    ``records`` of the topic were looked at. ``strays`` are those among them that nobody vouches for. ``because`` says
    why nothing, or not all, could be compared.
    """

    compared: int = 0
    vouched: int = 0
    records: int = 0
    strays: Strays = field(default_factory=Strays)
    because: str = ""


class Judged:
    """What the fold said of each offset from ``first`` on, in order: a mark of 16 bytes, and the outcome.

    ``rules`` are the task's: they say what of a verdict is compared.
    """

    def __init__(self, first: int, folder: Path, rules: RecordRules) -> None:
        self.first = first
        self.rules = rules
        self.next_offset = first
        self._marks = tempfile.SpooledTemporaryFile(  # it lives as long as this  # noqa: SIM115
            MARKS_IN_MEMORY_BYTES_MAX, "w+b", dir=str(folder)
        )

    def add(self, verdict: Verdict) -> None:
        """Remember the fold's verdict of ``next_offset``."""
        assert verdict.offset == self.next_offset, "the fold judges offset after offset"
        mark = mark_of(verdict, encode_verdict(verdict, self.rules), self.rules)
        self._marks.write(mark + bytes((_OUTCOME_OF[verdict.outcome],)))
        self.next_offset += 1

    def mark(self, offset: int) -> bytes:
        """The mark of an offset that was judged."""
        return self._entry(offset)[:MARK_BYTES]

    def outcome(self, offset: int) -> str:
        """Its outcome."""
        return OUTCOMES[self._entry(offset)[MARK_BYTES]]

    def _entry(self, offset: int) -> bytes:
        self._marks.seek((offset - self.first) * _ENTRY_BYTES)
        return self._marks.read(_ENTRY_BYTES)


def _mark(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:MARK_BYTES]


@dataclass(frozen=True, slots=True)
class Place:
    """A partition, and the topic that its verdicts stand in. ``name`` is ``region[partition]``."""

    name: str
    topic: str
    partition: int

    def at(self, position: int) -> str:
        """A record of the topic."""
        return f"{self.topic}[{self.partition}]@{position}"


@dataclass(slots=True)
class _Instead:
    """What stands for an offset whose right verdict has not come so far."""

    position: int
    outcome: str
    mark: bytes
    records: int = 1


class Comparison:
    """One partition's verdicts against what the fold said of it.

    ``covered``: below it every offset is in a signed window. ``log_end`` is where the updates ended after the verdicts
    were measured, ``signed_end`` the highest offset that a signed window claims, plus one.
    """

    def __init__(
        self, place: Place, judged: Judged, by: VouchedBy, *, covered: int, log_end: int, signed_end: int
    ) -> None:
        self._place = place
        self._judged = judged
        self._by = by
        self._covered = max(judged.first, min(covered, judged.next_offset))
        self._log_end = log_end
        self._signed_end = signed_end
        self._begin()

    def _begin(self) -> None:
        self._found = bytearray(self._judged.next_offset - self._judged.first)
        self._unsettled: dict[int, _Instead] = {}
        self._strays = Strays()
        self._heads = VouchedStretches(
            self._by,
            self._judged.mark,
            first=self._judged.first,
            judged=self._judged.next_offset,
            covered=self._covered,
            log_end=self._log_end,
        )
        self._claimed: tuple[int, int, int, int] | None = None
        self._records = 0
        self._expected = self._judged.first

    def run(
        self,
        reader: RecordReader,
        bound: VerdictsBound,
        findings: Findings,
        *,
        heard: Callable[[int], None],
    ) -> ComparedVerdicts:
        """Read the topic and compare; ``heard(records)`` follows it."""
        if bound.absent:
            return ComparedVerdicts(because=bound.absent)
        # Every offset has a verdict and copies only add records, so that of offset o stands at position o or later.
        start = max(bound.low, self._judged.first)
        because = ""
        try:
            self._read(reader, start, bound.end, heard)
            if start > bound.low and self._first_lacking() is not None:
                self._begin()  # one is missing, and those behind it stand further in front
                self._read(reader, bound.low, bound.end, heard)
        except IntegrityProblem as problem:
            because = f"the verdicts cannot be read: {problem.message}"
        if bound.low > 0 and self._first_lacking() is not None:
            because = because or f"{self._place.topic}[{self._place.partition}] begins at record {bound.low}"
        self._report(findings, whole=not because)
        compared = int(np.count_nonzero(self._flags() == _RIGHT)) if because else self._flags().size
        return ComparedVerdicts(compared, self._heads.offsets, self._records, self._strays, because)

    # -- reading

    def _read(self, reader: RecordReader, start: int, end: int, heard: Callable[[int], None]) -> None:
        for record in reader.read(self._place.topic, self._place.partition, start, end):
            self._records += 1
            if stray := self._heads.take(record):
                self._stray(stray, record.offset)
            self._take(record.offset, record.value or b"")
            if self._records % HEARD_EVERY_RECORDS == 0:
                heard(self._records)

    def _take(self, position: int, value: bytes) -> None:
        judged, expected = self._judged, self._expected
        is_short = len(value) <= VERDICT_BYTES_MAX  # one may unpack to 100 MB, and many of them be one batch
        if is_short and expected < judged.next_offset and _mark(value) == judged.mark(expected):
            self._settle(expected)  # by far the most: the next one, to the byte
            return
        try:
            verdict = decode_verdict(value) if is_short else None
        except CodecError:
            verdict = None
        if verdict is None or verdict.offset < 0:
            self._stray(NOT_A_VERDICT, position)
        elif verdict.offset >= self._log_end:
            self._beyond(verdict.offset, position)
        elif judged.first <= verdict.offset < judged.next_offset:
            mark = mark_of(verdict, value, judged.rules)
            if mark == judged.mark(verdict.offset):
                self._settle(verdict.offset)
            else:
                self._other(verdict, mark, position)

    def _settle(self, offset: int) -> None:
        at = offset - self._judged.first
        if self._found[at] == _OTHER:
            instead = self._unsettled.pop(offset, None)
            if instead is not None:
                self._stray(ANOTHER, instead.position, instead.records)
        self._found[at] = _RIGHT
        self._expected = max(self._expected, offset + 1)

    def _other(self, verdict: Verdict, mark: bytes, position: int) -> None:
        """Not what the fold says: a stray where the right one stands, or need not stand yet."""
        offset = verdict.offset
        at = offset - self._judged.first
        instead = self._unsettled.get(offset)
        if self._found[at] == _RIGHT or offset >= self._covered:
            self._stray(ANOTHER, position)
        elif instead is not None:
            instead.records += 1
        else:
            self._found[at] = _OTHER
            if len(self._unsettled) < UNSETTLED_MAX:
                self._unsettled[offset] = _Instead(position, verdict.outcome, mark)

    def _beyond(self, offset: int, position: int) -> None:
        if offset >= self._signed_end:
            self._stray(BEYOND, position)
            return
        records, lowest, highest, first = self._claimed or (0, offset, offset, position)
        self._claimed = (records + 1, min(lowest, offset), max(highest, offset), first)

    def _stray(self, kind: str, position: int, records: int = 1) -> None:
        self._strays.add(kind, self._place.at(position), records)

    # -- what came of it

    def _flags(self) -> np.ndarray:
        return np.frombuffer(self._found, np.uint8)[: self._covered - self._judged.first]

    def _first_lacking(self) -> int | None:
        lacking = np.flatnonzero(self._flags() != _RIGHT)
        return int(lacking[0]) if lacking.size else None

    def _report(self, findings: Findings, *, whole: bool) -> None:
        place, name = self._place, self._place.name
        self._heads.report(name, place.at, findings)
        if self._claimed is not None:
            records, lowest, highest, position = self._claimed
            findings.add(
                BEYOND_LOG,
                f"verdicts of {name}",
                place.at(position),
                "offsets",
                expected=f"below {self._log_end}, where the log ends",
                got=f"{lowest} to {highest} in {records} records, and a signed window that covers them",
            )
        if not whole:
            return  # what is lacking may have stood where nothing can be read
        for first, last in _runs(np.flatnonzero(self._flags() == _UNJUDGED) + self._judged.first):
            span = str(first) if first == last else f"{first} to {last}"
            findings.add(
                UNJUDGED,
                f"verdicts of {name}",
                f"{place.topic}[{place.partition}]",
                f"offset {span}" if first == last else f"offsets {span}",
                expected="judged, as the signed window that covers it says",
                got="no verdict",
            )
        for offset in (np.flatnonzero(self._flags() == _OTHER) + self._judged.first).tolist():
            self._report_other(offset, findings)

    def _report_other(self, offset: int, findings: Findings) -> None:
        place, instead = self._place, self._unsettled.get(offset)
        what = f"verdict of {place.name}@{offset}"
        outcome = self._judged.outcome(offset)
        if instead is None:
            where = f"{place.topic}[{place.partition}]"
            findings.add(OTHER_VERDICT, what, where, "verdict", expected=outcome, got="another")
        elif instead.outcome != outcome:
            where = place.at(instead.position)
            got = instead.outcome if instead.outcome in _OUTCOME_OF else "an outcome that there is not"
            findings.add(OTHER_VERDICT, what, where, "outcome", expected=outcome, got=got)
        else:
            where, mark = place.at(instead.position), self._judged.mark(offset).hex()
            findings.add(OTHER_VERDICT, what, where, "content", expected=mark, got=instead.mark.hex())


def bound_of(reader: TopicReader, topic: str, partition: int) -> VerdictsBound:
    """How far a partition of a verdicts topic reaches. One that is not there is no finding: verdicts are derived."""
    try:
        there = partition in reader.partitions(topic)
    except UsageProblem as problem:
        return VerdictsBound(absent=problem.message)
    if not there:
        return VerdictsBound(absent=f"there is no {topic}[{partition}]")
    return VerdictsBound(*reader.bounds(topic, partition))


def _runs(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """The first and last of each unbroken run of ascending offsets."""
    if not offsets.size:
        return
    breaks = np.flatnonzero(np.diff(offsets) != 1)
    firsts = offsets[np.concatenate(([0], breaks + 1))]
    lasts = offsets[np.concatenate((breaks, [offsets.size - 1]))]
    yield from zip(firsts.tolist(), lasts.tolist(), strict=True)
