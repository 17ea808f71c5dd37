"""``fluvial verdicts``: past verdicts of some partitions, then, if wanted, what comes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from aggregation.fold.events import Verdict
from aggregation.server.aggregates import Slot
from aggregation.weights.staleness import WEIGHT_ONE
from backends.shown import one_line
from fluvial.reading.task_view import TaskView
from fluvial.reading.verdicts import newest_verdicts, read_verdicts, verdict_document
from fluvial.terminal.offsets import Range, resolve_range
from fluvial.terminal.output import Output
from schemas.avro import CodecError
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict

TAIL_SEARCHED_RECORDS: Final = 1000
"""How far back an outcome is searched for in each partition when no offsets were given."""


class VerdictStream:
    """Shows verdicts of ``slots``, at most ``limit`` (None: no limit), as text lines or JSON lines."""

    def __init__(
        self, view: TaskView, slots: Sequence[Slot], output: Output, *, outcome: str | None, limit: int | None
    ) -> None:
        self._view = view
        self._slots = slots
        self._output = output
        self._outcome = outcome
        self._limit = limit
        self._highest = dict.fromkeys(slots, -1)
        self.shown = 0
        self.strays = 0

    def run(self, span: Range | None, *, follow: bool) -> None:
        """Past verdicts: those of ``span``, or the newest (none with ``follow``). With ``follow`` then on and on."""
        ends = {slot: self._end(slot) for slot in self._slots}
        try:
            if span is not None:
                self._show(self._spanned(span))
            elif not follow:
                self._show_newest()
            if follow and not self._full:
                self._follow(ends)
        finally:
            strays = {"strays": self.strays} if self.strays else {}
            self._output.line({"shown": self.shown} | strays, terminal=True)
            if self.strays:
                self._output.say(
                    f"{self.strays} records there are not verdicts of this log: only workers should write to it"
                )

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.shown >= self._limit

    def _end(self, slot: Slot) -> int:
        return self._view.reader.bounds(verdicts_topic(self._view.task, slot[0]), slot[1])[1]

    def _spanned(self, span: Range) -> Iterator[tuple[Slot, Verdict]]:
        view, now_ms = self._view, round(time.time() * 1000)
        for slot in self._slots:
            topic = updates_topic(view.task, slot[0])
            first, end = resolve_range(span, view.reader, topic, slot[1], now_ms=now_ms)
            for verdict in read_verdicts(view.reader, view.task, slot, first, end):
                self._highest[slot] = max(self._highest[slot], verdict.offset)
                yield slot, verdict

    def _show(self, found: Iterator[tuple[Slot, Verdict]]) -> None:
        for slot, verdict in found:
            if self._wanted(verdict):
                if self._full:
                    self._output.say(
                        f"showing {self.shown}, there are more: raise --limit, or narrow the range"
                    )
                    return
                self._line(slot, verdict)

    def _show_newest(self) -> None:
        limit = self._limit or TAIL_SEARCHED_RECORDS
        count = max(limit, TAIL_SEARCHED_RECORDS) if self._outcome else limit
        found: list[tuple[int, Slot, Verdict]] = []
        seen = 0
        for slot in self._slots:
            for timestamp_ms, verdict in newest_verdicts(self._view.reader, self._view.task, slot, count):
                seen += 1
                if self._wanted(verdict):
                    found.append((timestamp_ms, slot, verdict))
        found.sort(key=lambda entry: (entry[0], entry[1], entry[2].offset))
        for _, slot, verdict in found[-limit:]:
            self._line(slot, verdict)
        if not found:
            what = f"{self._outcome} " if self._outcome else ""
            self._output.say(f"no {what}verdicts among the newest {seen}: name a range with --from @start")
        elif len(found) > limit:
            self._output.say(f"showing {limit} of the newest {len(found)}   (--limit, --from)")

    def _follow(self, ends: dict[Slot, int]) -> None:
        task = self._view.task
        slots = {(verdicts_topic(task, slot[0]), slot[1]): slot for slot in self._slots}
        starts = {key: ends[slot] for key, slot in slots.items()}
        names = ", ".join(f"{region}[{partition}]" for region, partition in self._slots)
        self._output.say(f"following {names}, Ctrl-C ends")
        for record in self._view.reader.follow(starts):
            if record is None:
                continue
            slot = slots[(record.topic, record.partition)]
            verdict = self._verified(slot, record.value or b"")
            if verdict is None:
                self.strays += 1
                continue
            if verdict.offset <= self._highest[slot]:
                continue  # shown already, or published twice by a worker that came back
            self._highest[slot] = verdict.offset
            if self._wanted(verdict):
                self._line(slot, verdict)
            if self._full:
                return

    def _verified(self, slot: Slot, value: bytes) -> Verdict | None:
        """The verdict in a record; None for one that is none, or that judges an offset beyond the log's end.

        Whoever planted such a thing must not end the following, nor hide all verdicts that come.
        """
        try:
            verdict = decode_verdict(value)
        except CodecError:
            return None
        if verdict.offset <= self._highest[slot] + 1:
            return verdict
        topic = updates_topic(self._view.task, slot[0])
        return verdict if verdict.offset < self._view.reader.bounds(topic, slot[1])[1] else None

    def _wanted(self, verdict: Verdict) -> bool:
        return self._outcome is None or verdict.outcome == self._outcome

    def _line(self, slot: Slot, verdict: Verdict) -> None:
        self.shown += 1
        self._output.line(verdict_document(slot, verdict))
        self._output.print(line_of(slot, verdict))


def line_of(slot: Slot, verdict: Verdict) -> str:
    """One verdict as one line of text."""
    parts = [
        f"{slot[0]}[{slot[1]}]@{verdict.offset}".ljust(16),
        verdict.outcome.ljust(19),
        (verdict.device_id or "-").ljust(10),
    ]
    if verdict.base_version >= 0:
        parts.append(f"base {verdict.base_version}")
    if verdict.staleness >= 0:
        parts.append(f"staleness {verdict.staleness}  weight {verdict.weight / WEIGHT_ONE:.4f}")
    if verdict.norm:
        parts.append(
            f"norm {verdict.norm:.4g}  deviations {verdict.norm_deviations:.2f}  cosine {verdict.cosine:.3f}"
        )
    if verdict.detail:
        parts.append(verdict.detail)
    return one_line("  ".join(parts))
