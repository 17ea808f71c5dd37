"""Records as typed columns. The fast way is Arrow's own JSON reader, a chunk at once; the exact way takes one by one.

Columns are those of ``metrics.v1.schema.json``, and every other field, of a task's own or of a later schema, stands in
``extra`` as JSON. Every record has a row: one that is no JSON object has its offset, its time and ``extra``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from aggregation.fold.rejections import OUTCOMES
from fluvial.export.columns import COLUMNS
from fluvial.reading.verdicts import values_document
from schemas.avro import CodecError
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Collection

_DYNAMIC: Final = re.compile(
    r".{1,64}_(class_-?\d{1,6}|cohort_\d{1,3}|worst_decile|best_decile)"
    r"|cohort_\d{1,2}_(accepted|bytes_up|bytes_down|device_seconds|cost_total)"
)
_KNOWN: Final = {**COLUMNS, **{f"verdicts_{outcome}": pa.int64() for outcome in OUTCOMES}}
_KIND: Final = b'"kind":"'
_KIND_BYTES_MAX: Final = 20
BLOCK_BYTES: Final = 1 << 20
"""Bytes that one thread of Arrow's reader takes at once."""

KINDS_MAX: Final = 64
"""Kinds whose records are converted each by themselves; those of further ones, which nobody knows, together."""
OWN_COLUMNS_MAX: Final = 1000
"""Columns of a chunk that are a task's own; further such fields go to ``extra``."""

Row = tuple[int, int, bytes | None]


def metric_rows(rows: list[Row], partition: int) -> tuple[pa.Table, int]:
    """(a table in the order of the rows, how many rows could not be read).

    Records of one kind are converted together: they have the same fields, and what cannot be converted at once holds up
    its own kind only.
    """
    groups: dict[bytes, list[int]] = {}
    for index, (_, _, value) in enumerate(rows):
        kind = _kind_of(value or b"")
        groups.setdefault(kind if kind in groups or len(groups) < KINDS_MAX else b"", []).append(index)
    own = _OwnColumns()
    tables: list[pa.Table] = []
    unreadable = 0
    for indices in groups.values():
        values = [rows[index][2] or b"" for index in indices]
        table = _by_arrow(values, own)
        if table is None:
            table, failed = _one_by_one(values, own)
            unreadable += failed
        tables.append(table)
    whole = _together(tables)
    if len(groups) > 1:
        places = np.concatenate([np.asarray(indices) for indices in groups.values()])
        whole = whole.take(pa.array(np.argsort(places)))
    return _placed(whole, rows, partition), unreadable


def _kind_of(value: bytes) -> bytes:
    """What stands in the first field ``kind``, or what looks like it: records are only grouped by it."""
    at = value.find(_KIND)
    return value[at : at + _KIND_BYTES_MAX] if at >= 0 else b""


def _together(tables: list[pa.Table]) -> pa.Table:
    """All tables as one: the known columns, then others by name, then ``extra``; null where one has no such column."""
    if not tables:
        tables = [pa.table({"extra": pa.array([], pa.string())})]
    found = {name for table in tables for name in table.column_names}
    dynamic = {name: pa.float64() for name in sorted(found - _KNOWN.keys() - {"extra"})}
    schema = pa.schema([*(_KNOWN | dynamic).items(), ("extra", pa.string())])
    whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    return whole.combine_chunks()


def _placed(table: pa.Table, rows: list[Row], partition: int) -> pa.Table:
    place = {
        "offset": pa.array([row[0] for row in rows], pa.int64()),
        "timestamp_ms": pa.array([row[1] for row in rows], pa.int64()),
        "log_partition": pa.array(np.full(len(rows), partition, np.int32)),
    }
    return pa.table(place | {name: table.column(name) for name in table.column_names})


class _OwnColumns:
    """The columns that are a task's own. Anybody may write a record with any number of such fields."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether a field has a column; what is no such field, and what is too much, goes to ``extra``."""
        if name in self._names:
            return True
        if len(self._names) == OWN_COLUMNS_MAX or not _DYNAMIC.fullmatch(name):
            return False
        self._names.add(name)
        return True


def _by_arrow(values: list[bytes], own: _OwnColumns) -> pa.Table | None:
    """All at once, the known columns that occur; None where it takes one by one to say what is wrong with which."""
    if not all(v[:1] == b"{" and v[-1:] == b"}" and b"\n" not in v for v in values):
        return None
    try:
        expected = {name for name in msgspec.json.decode(values[0], type=dict[str, Any]) if name in _KNOWN}
        read = _read(values, expected)
        known = {name for name in read.column_names if name in _KNOWN}
        if any(read.schema.field(name).type != _KNOWN[name] for name in known):
            # A field that the first record has not was taken for another type, as a whole number for a real one.
            read = _read(values, known)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
    ):
        return None
    if read.num_rows != len(values):
        return None
    columns: dict[str, Any] = {}
    others: list[str] = []
    for name in read.column_names:
        column = read.column(name)
        if name in _KNOWN:
            columns[name] = column
        elif _numeric(column.type) and own.has(name):
            try:
                columns[name] = column.cast(pa.float64())
            except pa.ArrowInvalid:  # a whole number that no float64 holds
                return None
        else:
            others.append(name)
    columns["extra"] = _extra(read, others, values, set(columns))
    return pa.table(columns)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _read(values: list[bytes], names: Collection[str]) -> pa.Table:
    """Arrow's reader, with the known types of these fields; the types of others follow from their values."""
    schema = pa.schema([(name, kind) for name, kind in _KNOWN.items() if name in names])
    return pj.read_json(
        pa.BufferReader(b"\n".join(values)),
        read_options=pj.ReadOptions(block_size=max(BLOCK_BYTES, 2 * max(map(len, values)))),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


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


def _one_by_one(values: list[bytes], own: _OwnColumns) -> tuple[pa.Table, int]:
    taken: dict[str, list[Any]] = {}
    extra: list[str | None] = [None] * len(values)
    unreadable = 0
    for index, value in enumerate(values):
        try:
            document = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            extra[index] = json.dumps({"unreadable": value[:200].decode("utf-8", "replace")})
            continue
        rest = {}
        for name, field in document.items():
            kind = _KNOWN.get(name, pa.float64())
            if not _fits(field, kind) or (name not in _KNOWN and not own.has(name)):
                rest[name] = field
            else:
                taken.setdefault(name, [None] * len(values))[index] = field
        extra[index] = json.dumps(rest, sort_keys=True) if rest else None
    columns = {name: pa.array(found, _KNOWN.get(name, pa.float64())) for name, found in taken.items()}
    return pa.table({**columns, "extra": pa.array(extra, pa.string())}), unreadable


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
    "reason": pa.string(), "values": pa.string(), "forged": pa.string(),
}  # fmt: skip


_SAME: Final = tuple(_VERDICT.keys() - {"verdict_offset", "weight", "reason", "values", "forged"})
"""Columns that are a verdict's own fields."""


def verdict_rows(rows: list[Row], partition: int) -> tuple[pa.Table, int]:
    """As ``metric_rows``, for a verdicts topic: ``verdict_offset`` is the offset that a verdict judges.

    ``reason`` is a name of ``docs/reasons.md``, ``values`` its values as JSON; both are null where a verdict of v1 has
    words only (``detail``).
    """
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
        for name in _SAME:
            taken[name][index] = getattr(verdict, name)
        taken["verdict_offset"][index] = verdict.offset
        taken["weight"][index] = verdict.weight / 65536
        why = verdict.because
        if why.reason.code >= 0:
            taken["reason"][index] = why.reason.name.lower()
            taken["values"][index] = json.dumps(values_document(why), allow_nan=False) if why.values else None
            taken["forged"][index] = why.forged or None
    columns = {name: pa.array(found, _VERDICT[name]) for name, found in taken.items()}
    table = pa.table({**columns, "extra": pa.array(extra, pa.string())})
    return _placed(table, rows, partition), unreadable
