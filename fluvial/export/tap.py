"""``fluvial tap``: the metrics topic as a table, JSON lines or CSV, from some point on, and then what comes."""

from __future__ import annotations

import csv
import io
import json
import re
import select
import time
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from backends.shown import one_line
from fluvial.terminal.offsets import Point, parse_point, resolve
from schemas.metrics import problem_of
from schemas.task_metric import LOSS, metric_of
from schemas.topics import metrics_topic

if TYPE_CHECKING:
    from collections.abc import Collection

    from backends.kafka.reading import LogReader
    from fluvial.terminal.output import Output

Format = Literal["table", "json", "csv"]

_DURATION: Final = re.compile(r"\d+[smhd]")
_SHOWN: Final = {
    "version": ("version", "accepted", "refused", "windows", "participation", "staleness_mean", "seconds"),
    "window": (
        "region",
        "partition",
        "sequence",
        "version",
        "accepted",
        "refused",
        "norm_p50",
        "fill_seconds",
    ),
    "region_minute": ("region", "partition", "records", "refused", "devices", "bytes_up", "cost_total"),
}
CSV_COLUMNS: Final = ("kind", "at_ms", "task", "region", "partition", "version", "sequence", "field", "value")
_CSV_KEYS: Final = frozenset({*CSV_COLUMNS[:-2], "schema_version"})


def since_point(text: str) -> Point:
    """``10m`` as well as the language of ``fluvial.terminal.offsets``; UsageProblem FLV-6201."""
    return parse_point(f"@-{text}" if _DURATION.fullmatch(text) else text)


class MetricTap:
    """Shows records of one task, at most ``records_max`` (None: no limit)."""

    def __init__(
        self,
        reader: LogReader,
        task: str,
        output: Output,
        *,
        form: Format,
        kinds: Collection[str] = (),
        region: str | None = None,
        records_max: int | None = None,
    ) -> None:
        self._reader = reader
        self._topic = metrics_topic(task)
        self._output = output
        self._form = form
        self._kinds = kinds
        self._region = region
        self._records_max = records_max
        self.shown = 0
        self.left_out: dict[str, int] = {}

    def run(self, since: Point, *, follow: bool) -> None:
        """What stands there from ``since`` on, then, if wanted, what comes, until Ctrl-C."""
        start = resolve(since, self._reader, self._topic, 0, now_ms=round(time.time() * 1000))
        _, end = self._reader.bounds(self._topic, 0)
        if self._form == "csv":
            self._write_row(CSV_COLUMNS)
        try:
            if follow:
                self._output.say(f"following {self._topic} from offset {start}, Ctrl-C ends")
                self._follow(start)
            else:
                for record in self._reader.read(self._topic, 0, start, end):
                    self._take(record.value or b"", record.offset)
                    if self._full:
                        break
        finally:
            if self._output.json:
                self._output.line({"shown": self.shown, "left_out": self.left_out}, terminal=True)
            for why, count in sorted(self.left_out.items()):
                self._output.say(f"left out {count} records: {why}")

    def _follow(self, start: int) -> None:
        for record in self._reader.follow({(self._topic, 0): start}):
            if record is not None:
                self._take(record.value or b"", record.offset)
            if self._full or (record is None and _nobody_reads(self._output.stdout)):
                return

    @property
    def _full(self) -> bool:
        return self._records_max is not None and self.shown >= self._records_max

    def _take(self, value: bytes, offset: int) -> None:
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            document = None
        problem = problem_of(document)
        if problem:
            if problem not in self.left_out and len(self.left_out) < _REASONS_MAX:
                self._output.say(f"left out offset {offset}: {problem}")
            known = problem if problem in self.left_out or len(self.left_out) < _REASONS_MAX else "others"
            self.left_out[known] = self.left_out.get(known, 0) + 1
            return
        if self._kinds and document["kind"] not in self._kinds:
            return
        if self._region is not None and document.get("region") != self._region:
            return
        self.shown += 1
        self._show(document)

    def _show(self, document: dict[str, Any]) -> None:
        if self._form == "json":
            self._output.stdout.write(json.dumps(document, sort_keys=True) + "\n")
        elif self._form == "csv":
            # Kinds have different fields, and evaluations as many as the task likes: so one field a row.
            keys = [document.get(name, "") for name in CSV_COLUMNS[:-2]]
            for name, value in sorted(document.items()):
                if name not in _CSV_KEYS:
                    self._write_row([*keys, name, value])
        else:
            self._output.stdout.write(line_of(document) + "\n")
        self._output.stdout.flush()

    def _write_row(self, row: Collection[object]) -> None:
        text = io.StringIO()
        if self._output.stdout.isatty():  # a file gets what stands in the topic
            row = [one_line(cell) if isinstance(cell, str) else cell for cell in row]
        csv.writer(text, lineterminator="\n").writerow(row)
        self._output.stdout.write(text.getvalue())


_REASONS_MAX: Final = 20


def _nobody_reads(stdout: TextIO) -> bool:
    """Whether the reader of our output is gone (``| head``), which a quiet topic would not show for ever."""
    poll = select.poll()
    poll.register(stdout.fileno(), 0)
    return bool(poll.poll(0))  # nothing was asked for, so what comes is an error or a hang-up


def line_of(document: dict[str, Any]) -> str:
    """One record as one line for people: when, its kind, and the fields that say most."""
    at_ms = document.get("at_ms")
    usable = isinstance(at_ms, int) and 0 <= at_ms < _MS_MAX
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1000)) if usable and at_ms else "-"
    names = _of_evaluation(document) if document["kind"] == "evaluation" else _SHOWN[document["kind"]]
    fields = [f"{_short(name)} {_short(document[name])}" for name in names if name in document]
    return f"{when:<20}  {document['kind']:<13}  " + "  ".join(fields)


def _of_evaluation(document: dict[str, Any]) -> tuple[str, ...]:
    """The task's metric and its worst decile among the other fields."""
    metric = metric_of(None, document)
    name = LOSS if metric is None else metric.name
    return ("version", *dict.fromkeys((name, LOSS)), f"{name}_worst_decile", "fairness_gap")


_MS_MAX: Final = 253_402_300_800_000


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return one_line(text[:64])
