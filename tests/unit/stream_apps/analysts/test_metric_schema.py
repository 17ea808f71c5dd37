"""The schema of records for analysts: it has every kind, golden records stay valid, and what is no record is named."""

from __future__ import annotations

import json

import jsonschema
import pytest

from schemas.metrics import KINDS, encode_metric, problem_of
from tests.unit.stream_apps.analysts.published_schema import GOLDEN, SCHEMA, VALID


def test_the_schema_is_one_and_has_every_kind() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]) == set(KINDS)


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines())
def test_golden_records_of_version_1_are_valid_for_ever(line: str) -> None:
    VALID.validate(json.loads(line))


def test_the_golden_records_have_every_kind_and_a_wrong_type_would_be_found() -> None:
    records = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert {record["kind"] for record in records} == set(KINDS)
    for record in records:
        assert not VALID.is_valid(record | {"at_ms": "now"})
        assert not VALID.is_valid(record | {"schema_version": 2})
        assert not VALID.is_valid(record | {"nested": {"a": 1}})
        assert not VALID.is_valid({name: value for name, value in record.items() if name != "task"})


def test_a_number_that_json_does_not_have_becomes_null() -> None:
    assert json.loads(encode_metric({"a": float("nan"), "b": float("inf"), "c": 1})) == {
        "a": None,
        "b": None,
        "c": 1,
    }


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "not a JSON object"),
        ({"kind": "window", "schema_version": 2}, "schema 2"),
        ({"kind": "window", "schema_version": True}, "no number"),
        ({"kind": "other", "schema_version": 1}, "unknown kind"),
        ({"kind": "window", "schema_version": 1}, ""),
        ({"kind": "evaluation", "version": 1}, ""),
    ],
)
def test_what_is_no_known_record_is_named(document: object, why: str) -> None:
    assert why in problem_of(document)
    assert bool(problem_of(document)) == bool(why)
