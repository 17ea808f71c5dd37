"""Single-object encoding: what decodes, what is refused, and that no bytes cost more than they should."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
from importlib import resources
from typing import Any

import pytest
import rfc8785
from fastavro.schema import to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st

from schemas import avro as codec
from tests import naive
from tests.factories import update_record

NAMES = [
    "SignedEnvelope",
    "ClientUpdate",
    "Barrier",
    "Tick",
    "Revoke",
    "Skip",
    "Pardon",
    "RegionalAggregate",
    "ModelAnnouncement",
    "PartitionState",
    "Verdict",
]
UPDATE_HEADER = codec.schemas_for("ClientUpdate")[0].header
RELEASED = [(name, number) for name in NAMES for number in range(1, 1 + len(codec.schemas_for(name)))]


def schema_file(name: str, version: int = 1) -> dict[str, Any]:
    """A schema's document, as released."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    document: dict[str, Any] = json.loads(
        resources.files("schemas").joinpath("avsc", f"{snake}.v{version}.avsc").read_text()
    )
    return document


def update_body(tensors: bytes) -> bytes:
    """A ClientUpdate whose tensors are the given bytes."""
    document = schema_file("ClientUpdate")
    record = update_record("d-1", tensors=[])
    out = b""
    for field in document["fields"]:
        value = record[field["name"]]
        out += tensors if field["name"] == "tensors" else naive.avro(field["type"], value)
    return UPDATE_HEADER + out


@pytest.mark.parametrize(("name", "version"), RELEASED)
def test_every_record_has_a_schema_with_docs_on_the_record_and_on_every_field(
    name: str, version: int
) -> None:
    document = schema_file(name, version)
    assert document["doc"]
    assert all(field["doc"] for field in document["fields"])


@pytest.mark.parametrize(("name", "version"), RELEASED)
def test_the_header_is_the_marker_and_the_specifications_fingerprint(name: str, version: int) -> None:
    canonical = to_parsing_canonical_form(schema_file(name, version))
    expected = b"\xc3\x01" + struct.pack("<Q", naive.crc64_avro(canonical.encode()))
    assert codec.schemas_for(name)[version - 1].header == expected


def test_the_fingerprint_of_the_specifications_example_is_ours() -> None:
    assert naive.crc64_avro(b'"null"') == 0x63DD24E7CC258F8A


@pytest.mark.parametrize(("name", "version"), RELEASED)
def test_signatures_bind_the_full_schema_docs_and_defaults_included(name: str, version: int) -> None:
    expected = hashlib.sha256(rfc8785.dumps(schema_file(name, version))).digest()
    assert codec.schemas_for(name)[version - 1].sha256 == expected


def test_a_record_is_written_by_the_oldest_schema_that_can_hold_it() -> None:
    first, second = codec.schemas_for("ClientUpdate")
    for name, expected in (("int8", first), ("float32", first), ("int4", second), ("ø" * 9, second)):
        data = codec.encode("ClientUpdate", update_record("d-1") | {"codec": name})
        assert codec.schema_of(data) == expected
        assert codec.decode(data)[1]["codec"] == name


def test_no_two_schemas_share_a_header() -> None:
    files = [
        entry
        for entry in resources.files("schemas").joinpath("avsc").iterdir()
        if entry.name.endswith(".avsc")
    ]
    assert len(codec.registry()) == len(files)


def test_a_record_survives_the_way_there_and_back() -> None:
    record = update_record("d-1")
    schema, decoded = codec.decode(codec.encode("ClientUpdate", record))
    assert schema.name == "ClientUpdate"
    assert decoded["tensors"] == record["tensors"]
    assert {k: v for k, v in decoded.items() if k != "created_at"} == {
        k: v for k, v in record.items() if k != "created_at"
    }


def test_the_bytes_are_the_specifications() -> None:
    record = update_record("d-1")
    assert codec.encode("ClientUpdate", record) == UPDATE_HEADER + naive.avro(
        schema_file("ClientUpdate"), record
    )


@pytest.mark.parametrize(
    "data", [b"", b"\xc3", b"\xc3\x01", b"\xc3\x01" + bytes(7), b"{}" + bytes(20), bytes(50)]
)
def test_bytes_without_a_whole_header_are_refused(data: bytes) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.decode(data)
    assert not isinstance(caught.value, codec.UnknownSchemaError)


def test_an_unknown_fingerprint_is_told_apart() -> None:
    with pytest.raises(codec.UnknownSchemaError, match="0102030405060708"):
        codec.decode(b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08rest")


def test_every_truncation_and_every_trailing_byte_is_refused() -> None:
    data = codec.encode("ClientUpdate", update_record("d-1"))
    for length in range(len(data)):
        with pytest.raises(codec.CodecError):
            codec.decode(data[:length])
    with pytest.raises(codec.CodecError, match="1 bytes too many"):
        codec.decode(data + b"\0")


TENSOR_END = bytes(8) + b"\0"
LENGTH_MIN = b"\xff" * 9 + b"\x01"
BOMBS = {
    "a gigantic count of tensors": naive.zigzag(1 << 62),
    "a gigantic negative count": naive.zigzag(-(1 << 62)) + naive.zigzag(8),
    "the smallest long as a count": LENGTH_MIN + naive.zigzag(8),
    "a gigantic name": naive.zigzag(1) + naive.zigzag(1 << 40),
    "a negative name": naive.zigzag(1) + naive.zigzag(-9),
    "the smallest long as a name's length": naive.zigzag(1) + LENGTH_MIN,
    "gigantic data": naive.zigzag(1) + b"\0\0" + bytes(8) + naive.zigzag(1 << 61),
    "negative data": naive.zigzag(1) + b"\0\0" + bytes(8) + naive.zigzag(-40),
    "a gigantic shape": naive.zigzag(1) + b"\0" + naive.zigzag(1 << 62),
    "a name that is not UTF-8": naive.zigzag(1) + naive.zigzag(2) + b"\xff\xfe" + b"\0" + TENSOR_END,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_lengths_that_lie_are_refused_in_little_memory(bomb: bytes) -> None:
    data = update_body(bomb)
    tracemalloc.start()
    with pytest.raises(codec.CodecError):
        codec.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=200))
def test_no_body_makes_decode_raise_anything_but_its_error(body: bytes) -> None:
    for header in codec.registry():
        try:
            codec.decode(header + body)
        except codec.CodecError:
            continue


def test_a_name_without_a_schema_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        codec.schema_for("Nothing")
