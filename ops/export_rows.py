"""Records as typed columns. The fast way is Arrow's own JSON reader, a chunk at once; the exact way takes one by one.

Columns are those of ``metrics.v1.schema.json``, and every other field, of a task's own or of a later schema, stands in
``extra`` as JSON. Every record has a row: one that is no JSON object has its offset, its time and ``extra``.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from aggregation.events import ACCEPTED, CONTROL, SKIPPED, Rejection
from ops.metric_columns import COLUMNS
from schemas.codec import CodecError
from schemas.sealing import decode_verdict

_DYNAMIC: Final = re.compile(r"accuracy_(class_-?\d{1,6}|cohort_\d{1,3})")
_OUTCOMES: Final = (ACCEPTED, SKIPPED, CONTROL, *(one.outcome for one in Rejection))
_KNOWN: Final = {**COLUMNS, **{f"verdicts_{outcome}": pa.int64() for outcome in _OUTCOMES}}
_PLACE: Final = {"offset": pa.int64(), "timestamp_ms": pa.int64(), "log_partition": pa.int32()}

Row = tuple[int, int, bytes | None]


def metric_rows(rows: list[Row], partition: int) -> tuple[pa.Table, int]:
    """(a table, how many rows could not be read)."""
    table = _by_arrow(rows)
    unreadable = 0
    if table is None:
        columns, unreadable = _one_by_one(rows)
        table = pa.table(columns)
    return _placed(table, rows, partition), unreadable


def _placed(table: pa.Table, rows: list[Row], partition: int) -> pa.Table:
    place = {
        "offset": pa.array([row[0] for row in rows], pa.int64()),
        "timestamp_ms": pa.array([row[1] for row in rows], pa.int64()),
        "log_partition": pa.array([partition] * len(rows), pa.int32()),
    }
    return pa.table(place | {name: table.column(name) for name in table.column_names})


def _by_arrow(rows: list[Row]) -> pa.Table | None:
    """All at once; None where a record is not what it should be: it takes one by one to say which."""
    values = [row[2] or b"" for row in rows]
    if not values or not all(v[:1] == b"{" and v[-1:] == b"}" and b"\n" not in v for v in values):
        return None
    try:
        read = pj.read_json(
            pa.BufferReader(b"\n".join(values)),
            read_options=pj.ReadOptions(block_size=max(1 << 22, 2 * max(map(len, values)))),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema(list(_KNOWN.items())), unexpected_field_behavior="infer"
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if read.num_rows != len(values):
        return None
    dynamic: list[str] = []
    others: list[str] = []
    for name in read.column_names:
        if name in _KNOWN:
            continue
        number = pa.types.is_integer(read.column(name).type) or pa.types.is_floating(read.column(name).type)
        (dynamic if _DYNAMIC.fullmatch(name) and number else others).append(name)
    columns: dict[str, Any] = {name: read.column(name) for name in _KNOWN}
    columns |= {name: read.column(name).cast(pa.float64()) for name in sorted(dynamic)}
    columns["extra"] = _extra(read, others, values, set(columns))
    return pa.table(columns)


def _extra(read: pa.Table, others: list[str], values: list[bytes], taken: set[str]) -> pa.Array:
    """The other fields of each record, decoded from its own text, so that nothing changes on the way."""
    extra: list[str | None] = [None] * len(values)
    touched: set[int] = set()
    for name in others:
        touched.update(pc.indices_nonzero(pc.is_valid(read.column(name))).to_pylist())
    for index in touched:
        document = json.loads(values[index])
        extra[index] = json.dumps({k: v for k, v in document.items() if k not in taken}, sort_keys=True)
    return pa.array(extra, pa.string())


def _one_by_one(rows: list[Row]) -> tuple[dict[str, pa.Array], int]:
    taken: dict[str, list[Any]] = {name: [None] * len(rows) for name in _KNOWN}
    extra: list[str | None] = [None] * len(rows)
    unreadable = 0
    for index, (_, _, value) in enumerate(rows):
        try:
            document = msgspec.json.decode(value or b"", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            extra[index] = json.dumps({"unreadable": (value or b"")[:200].decode("utf-8", "replace")})
            continue
        rest = {}
        for name, field in document.items():
            kind = _KNOWN.get(name) or (pa.float64() if _DYNAMIC.fullmatch(name) else None)
            if kind is None or not _fits(field, kind):
                rest[name] = field
            else:
                taken.setdefault(name, [None] * len(rows))[index] = field
        extra[index] = json.dumps(rest, sort_keys=True) if rest else None
    columns = {name: pa.array(found, _KNOWN.get(name, pa.float64())) for name, found in taken.items()}
    return {**columns, "extra": pa.array(extra, pa.string())}, unreadable


_INT64: Final = 1 << 63


def _fits(value: object, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if pa.types.is_string(kind):
        return isinstance(value, str)
    if pa.types.is_integer(kind):
        return isinstance(value, int) and -_INT64 <= value < _INT64
    return isinstance(value, (int, float)) and abs(value) < 1 << 53


_VERDICT: Final = {
    "verdict_offset": pa.int64(), "outcome": pa.string(), "detail": pa.string(), "device_id": pa.string(),
    "update_id": pa.string(), "base_version": pa.int64(), "staleness": pa.int64(), "weight": pa.float64(),
    "clip": pa.float64(), "norm": pa.float64(), "norm_deviations": pa.float64(), "cosine": pa.float64(),
}  # fmt: skip


def verdict_rows(rows: list[Row], partition: int) -> tuple[pa.Table, int]:
    """As ``metric_rows``, for a verdicts topic: ``verdict_offset`` is the offset that a verdict judges."""
    taken: dict[str, list[Any]] = {name: [None] * len(rows) for name in _VERDICT}
    extra: list[str | None] = [None] * len(rows)
    unreadable = 0
    for index, (_, _, value) in enumerate(rows):
        try:
            verdict = decode_verdict(value or b"")
        except CodecError as error:
            unreadable += 1
            extra[index] = json.dumps({"unreadable": str(error)[:200]})
            continue
        for name, column in taken.items():
            column[index] = verdict.offset if name == "verdict_offset" else getattr(verdict, name)
        taken["weight"][index] = verdict.weight / 65536
    columns = {name: pa.array(found, _VERDICT[name]) for name, found in taken.items()}
    table = pa.table({**columns, "extra": pa.array(extra, pa.string())})
    return _placed(table, rows, partition), unreadable
