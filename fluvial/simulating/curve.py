"""A simulation's curve as a file: a row a version, CSV or JSON lines, written as it comes."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from aggregation.errors import EnvironmentProblem
from fluvial.simulating.ledger import Point
from schemas.task_metric import values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COLUMNS: Final = tuple(name for name in Point.__struct_fields__ if name != "metrics")


def row_of(point: Point) -> dict[str, Any]:
    """A point for JSON: what is no finite number is left out of its metrics."""
    row = msgspec.structs.asdict(point)
    row["metrics"] = {name: round(value, 6) for name, value in values_of(point.metrics).items()}
    return row


@contextmanager
def writer_of(path: Path | None) -> Iterator[Callable[[Point], None]]:
    """Writes points to ``path``, line by line; to nowhere for None. EnvironmentProblem FLV-6308: it cannot be written.

    A CSV has the metrics of the first version as columns.
    """
    if path is None:
        yield lambda _point: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                yield lambda point: _flushed(file, json.dumps(row_of(point)) + "\n")
                return
            writer: list[csv.DictWriter[str]] = []

            def write(point: Point) -> None:
                row = row_of(point)
                metrics = row.pop("metrics")
                if not writer:
                    columns = [*COLUMNS, *metrics]
                    writer.append(csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n"))
                    writer[0].writeheader()
                writer[0].writerow({**metrics, **row})
                file.flush()

            yield write
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the curve cannot be written: {error.strerror or error}",
            where=str(path),
            hint="choose another file with `--curve FILE`",
        ) from error


def _flushed(file: Any, text: str) -> None:
    file.write(text)
    file.flush()
