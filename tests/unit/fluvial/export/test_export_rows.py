"""Records as columns: the fast way and the exact way agree, whatever a record holds; nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from fluvial.export import rows as export_rows
from fluvial.export.columns import COLUMNS
from fluvial.export.parquet import CHUNK_RECORDS, _chunks
from fluvial.export.rows import metric_rows, verdict_rows
from fluvial.export.tap import line_of, since_point
from fluvial.terminal.offsets import Ago, Start
from tests.factories import verdict_bytes

ROOT = Path(__file__).parents[4]
SCHEMA = json.loads((ROOT / "schemas" / "metrics.v1.schema.json").read_text())
GOLDEN = [line.encode() for line in (ROOT / "tests" / "golden" / "metrics.v1.jsonl").read_text().splitlines()]


def rows(*values: bytes | None) -> list[tuple[int, int, bytes | None]]:
    return [(10 + at, 1000 + at, value) for at, value in enumerate(values)]


def test_every_field_of_the_schema_is_a_column_of_its_type() -> None:
    types = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64()}
    for kind in SCHEMA["$defs"].values():
        for name, field in kind["properties"].items():
            if "type" in field:
                first = field["type"][0] if isinstance(field["type"], list) else field["type"]
                assert COLUMNS[name] == types[first], name
    assert set(COLUMNS) == {name for kind in SCHEMA["$defs"].values() for name in kind["properties"]}


def test_the_fast_and_the_exact_way_agree() -> None:
    future = {
        "kind": "window",
        "later_field": "2026-01-01",
        "nested": {"a": [1]},
        "later_number": 7,
        "accepted": 3,
    }
    values = [*GOLDEN, json.dumps(future).encode()]
    fast = export_rows._by_arrow(values, export_rows._OwnColumns())
    assert fast is not None
    exact, unreadable = export_rows._one_by_one(values, export_rows._OwnColumns())
    assert unreadable == 0
    both = [export_rows._together([table]) for table in (fast, exact)]
    assert both[0].to_pydict() == both[1].to_pydict()
    assert (
        both[0].schema
        == both[1].schema
        == metric_rows(rows(*values), 0)[0].schema.remove(0).remove(0).remove(0)
    )
    assert json.loads(fast.column("extra")[-1].as_py()) == {
        "later_field": "2026-01-01", "nested": {"a": [1]}, "later_number": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    "junk",
    [None, b"", b"{", b"[]", b"\xff", b"7", b'{"a":1}\n{"b":2}', b'{"a":1}{"b":2}', b"[" * 100_000],
    ids=repr,
)
def test_what_is_no_record_keeps_its_row_and_the_others_theirs(junk: bytes | None) -> None:
    table, unreadable = metric_rows(rows(GOLDEN[0], junk, GOLDEN[1]), 0)
    assert (table.num_rows, unreadable) == (3, 1)
    assert table.column("offset").to_pylist() == [10, 11, 12]
    assert table.column("kind").to_pylist() == ["version", None, "evaluation"]
    assert "unreadable" in table.column("extra")[1].as_py()


@pytest.mark.parametrize("value", ["many", True, 1 << 70, [1], 1.5])
def test_a_field_of_another_type_goes_to_extra(value: Any) -> None:
    table, unreadable = metric_rows(rows(json.dumps({"kind": "window", "accepted": value}).encode()), 0)
    assert unreadable == 0
    assert table.column("accepted").to_pylist() == [None]
    assert json.loads(table.column("extra")[0].as_py()) == {"accepted": value}


@pytest.mark.parametrize("number", [(1 << 53) + 1, -(1 << 60), (1 << 63) - 1])
def test_a_number_that_no_column_holds_exactly_stays_in_extra(number: int) -> None:
    odd = json.dumps({"kind": "window", "loss_class_0": number}).encode()
    good = json.dumps({"kind": "window", "loss_class_0": 7}).encode()
    table, unreadable = metric_rows(rows(good, odd, good), 0)
    assert unreadable == 0
    assert table.column("loss_class_0").to_pylist() == [7.0, None, 7.0]
    assert json.loads(table.column("extra")[1].as_py()) == {"loss_class_0": number}


@pytest.mark.parametrize("spoiled", [False, True], ids=["at once", "one by one"])
def test_strangers_make_no_end_of_columns_and_lose_nothing(*, spoiled: bool) -> None:
    fields = {f"loss_class_{number}": number for number in range(2 * export_rows.OWN_COLUMNS_MAX)}
    flood = json.dumps({"kind": "window", "accepted": "no" if spoiled else 1, **fields}).encode()
    honest = json.dumps({"kind": "evaluation", "accuracy_class_0": 0.5, "loss_class_0": 1.5}).encode()
    table, unreadable = metric_rows(rows(honest, flood, honest), 0)
    assert unreadable == 0
    own = [name for name in table.column_names if "_class_" in name]
    assert len(own) == export_rows.OWN_COLUMNS_MAX
    assert table.column("accuracy_class_0").to_pylist() == [0.5, None, 0.5]
    row = table.slice(1, 1).to_pylist()[0]
    assert json.loads(row["extra"]) | {name: row[name] for name in own if row[name] is not None} == fields | (
        {"accepted": "no"} if spoiled else {}
    )


def test_strangers_kinds_are_converted_together() -> None:
    kinds = [json.dumps({"kind": f"k-{number}", "accepted": number}).encode() for number in range(1000)]
    table, unreadable = metric_rows(rows(*kinds, *GOLDEN), 0)
    assert unreadable == 0
    assert table.column("accepted").to_pylist()[:1000] == list(range(1000))
    assert table.column("kind").to_pylist()[1000:] == [json.loads(line)["kind"] for line in GOLDEN]


def test_verdicts_are_rows_too() -> None:
    good = verdict_bytes(Verdict(5, ACCEPTED, weight=32768, device_id="d-1"))
    table, unreadable = verdict_rows(rows(good, b"junk"), 3)
    assert unreadable == 1
    assert table.column("verdict_offset").to_pylist() == [5, None]
    assert table.column("weight").to_pylist() == [0.5, None]
    assert table.column("log_partition").to_pylist() == [3, 3]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 0, 0), []),
        ((0, 0, 5), [(0, 5)]),
        ((CHUNK_RECORDS + 7, 0, 2 * CHUNK_RECORDS), [(CHUNK_RECORDS, 2 * CHUNK_RECORDS)]),
        ((9, 7, CHUNK_RECORDS + 1), [(7, CHUNK_RECORDS), (CHUNK_RECORDS, CHUNK_RECORDS + 1)]),
    ],
)
def test_chunks_are_cut_at_the_same_places_whatever_the_start(
    span: tuple[int, int, int], expected: list[tuple[int, int]]
) -> None:
    assert list(_chunks(*span)) == expected


def test_a_line_for_people_survives_any_value() -> None:
    for line in GOLDEN:
        record = json.loads(line)
        assert record["kind"] in line_of(record)
        for at_ms in (None, "x", True, -1, 10**30, 1.5):
            assert line_of(record | {"at_ms": at_ms, "region": "\x1b[31m"}).isprintable()


def test_since_takes_a_duration_alone() -> None:
    assert (since_point("10m"), since_point("@-10m"), since_point("@start")) == (
        Ago(600_000),
        Ago(600_000),
        Start(),
    )
