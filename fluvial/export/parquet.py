"""``fluvial parquet``: a topic as Parquet files, one for every chunk of ``CHUNK_RECORDS`` offsets of a partition.

``<topic>.<partition>.<start>-<end>.parquet`` holds the offsets ``start`` to ``end`` - 1. Chunks begin at multiples of
``CHUNK_RECORDS``, whatever ``--since`` says, so every run cuts the log at the same places: a chunk that is complete is
kept, the last one is replaced when it has grown. A file gets its name when it is whole and on the disk.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.export.rows import metric_rows, verdict_rows
from fluvial.terminal.offsets import Point, resolve
from schemas.topics import metrics_topic, verdicts_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.kafka.reading import LogReader
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output, Waiting

CHUNK_RECORDS: Final = 100_000
CONVERSIONS_MAX: Final = 2
"""Chunks that are converted and written while the next one is read: Arrow lets go of the interpreter for most of it."""

Span = tuple[int, int]
Row = tuple[int, int, bytes | None]


@dataclass(slots=True)
class PartitionExport:
    """What became of one partition. ``gaps`` are offsets between its files that no file has."""

    topic: str
    partition: int
    written: int = 0
    kept: int = 0
    records: int = 0
    unreadable: int = 0
    ranges: list[Span] = field(default_factory=list)
    gaps: list[Span] = field(default_factory=list)

    def take(self, chunk: _Written) -> None:
        """Count a chunk that was written."""
        self.written += 1
        self.records += chunk.records
        self.unreadable += chunk.unreadable

    def row(self) -> tuple[object, ...]:
        """A row of the command's table."""
        first, last = (self.ranges[0][0], self.ranges[-1][1]) if self.ranges else ("-", "-")
        files = (self.records, self.written, self.kept, len(self.gaps))
        return (self.topic, self.partition, first, last, *files)


@dataclass(slots=True)
class Exported:
    """What one run did."""

    out: Path
    partitions: list[PartitionExport]
    seconds: float

    @property
    def unreadable(self) -> int:
        """Records that are no JSON object, or no verdict."""
        return sum(one.unreadable for one in self.partitions)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "out": str(self.out),
            "seconds": round(self.seconds, 3),
            "records": sum(one.records for one in self.partitions),
            "unreadable": self.unreadable,
            "partitions": [
                {
                    "topic": one.topic,
                    "partition": one.partition,
                    "files_written": one.written,
                    "files_kept": one.kept,
                    "records": one.records,
                    "ranges": one.ranges,
                    "gaps": one.gaps,
                }
                for one in self.partitions
            ],
        }


def export_topics(view: TaskView, kind: str, since: Point, out: Path, output: Output) -> Exported:
    """Export ``kind`` (metrics or verdicts) of a task from ``since`` to now.

    Raises UsageProblem FLV-7050 (OUT is no folder that can be written to), EnvironmentProblem FLV-7051 (a file could
    not be written, as on a full disk; files that have their names are whole).
    """
    began_s = time.monotonic()
    _make_folder(out)
    if kind == "metrics":
        places = [(metrics_topic(view.task), 0)]
    else:
        places = [(verdicts_topic(view.task, region), partition) for region, partition in view.genesis.slots]
    with output.waiting(f"the export to {out}") as waiting:
        done = [
            export_partition(view.reader, topic, partition, since, out, waiting=waiting)
            for topic, partition in places
        ]
    return Exported(out, done, time.monotonic() - began_s)


def export_partition(
    reader: LogReader,
    topic: str,
    partition: int,
    since: Point,
    out: Path,
    *,
    waiting: Waiting | None = None,
) -> PartitionExport:
    """Export one partition."""
    done = PartitionExport(topic, partition)
    low, high = reader.bounds(topic, partition)
    start = resolve(since, reader, topic, partition, now_ms=round(time.time() * 1000))
    under_way: deque[Future[_Written]] = deque()
    with ThreadPoolExecutor(CONVERSIONS_MAX, "export") as pool:
        for first, end in _chunks(start, low, high):
            standing = _files(out, topic, partition)
            if any(a <= first and end <= b and _whole(path) for (a, b), path in standing.items()):
                done.kept += 1
                continue
            rows = [row for batch in reader.read_batches(topic, partition, first, end) for row in batch]
            if len(under_way) == CONVERSIONS_MAX:
                done.take(under_way.popleft().result())
            under_way.append(pool.submit(_write_chunk, rows, topic, partition, (first, end), out))
            if waiting is not None:
                waiting.note(f"{topic}[{partition}] to offset {end} of {high}")
        while under_way:
            done.take(under_way.popleft().result())
    done.ranges = sorted(_files(out, topic, partition))
    reached = done.ranges[0][0] if done.ranges else 0
    for first, end in done.ranges:
        if first > reached:
            done.gaps.append((reached, first))
        reached = max(reached, end)
    return done


class _Written(NamedTuple):
    records: int
    unreadable: int


def _write_chunk(rows: list[Row], topic: str, partition: int, span: Span, out: Path) -> _Written:
    """Convert and write one chunk, and remove the files that held it when it was shorter."""
    first, end = span
    table, unreadable = (verdict_rows if ".verdicts." in topic else metric_rows)(rows, partition)
    _write(table, out / f"{topic}.{partition}.{first}-{end}.parquet")
    for (a, b), path in _files(out, topic, partition).items():
        if first <= a and b <= end and (a, b) != span:
            path.unlink()
    return _Written(len(rows), unreadable)


def _chunks(start: int, low: int, high: int) -> Iterator[Span]:
    """The chunks that hold ``start`` to ``high`` - 1, as far as the log goes back."""
    at = start // CHUNK_RECORDS * CHUNK_RECORDS
    while at < high:
        if max(at, low) < min(at + CHUNK_RECORDS, high):
            yield max(at, low), min(at + CHUNK_RECORDS, high)
        at += CHUNK_RECORDS


def _files(out: Path, topic: str, partition: int) -> dict[Span, Path]:
    name = re.compile(rf"{re.escape(topic)}\.{partition}\.(\d+)-(\d+)\.parquet")
    found = ((name.fullmatch(path.name), path) for path in out.iterdir())
    return {(int(match[1]), int(match[2])): path for match, path in found if match}


def _whole(path: Path) -> bool:
    """Whether a file is Parquet to its end: somebody may have cut it, or made one of that name."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _make_folder(out: Path) -> None:
    hint = "name a folder that you may write to: `fluvial parquet OUT`"
    if out.exists() and not out.is_dir():
        raise UsageProblem(
            "FLV-7050", "the export needs a folder, and this is a file", where=str(out), hint=hint
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageProblem(
            "FLV-7050", f"cannot write to the export's folder: {reason}", where=str(out), hint=hint
        ) from error


def _write(table: pa.Table, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            pq.write_table(table, file, compression="zstd", compression_level=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-7051",
            f"a file of the export could not be written: {error.strerror or error}",
            where=str(path),
            hint="make room, then run the same `fluvial parquet OUT` again: what is written is kept",
        ) from error
    finally:
        part.unlink(missing_ok=True)
