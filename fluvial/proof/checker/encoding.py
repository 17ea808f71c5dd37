"""Avro single-object encoding, by its specification: ``C3 01``, the schema's CRC-64-AVRO fingerprint, the body."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro
import rfc8785
from fastavro.schema import fingerprint, to_parsing_canonical_form

from fluvial.proof.checker import exact

READS_MAX: Final = 200_000
UNCOUNTED_BYTES_MAX: Final = 1 << 20
"""A ClientUpdate of more bytes than this may hold ``READS_MAX`` items, as fastavro reads them; more is undecodable."""
_SCHEMAS: Final = Path(__file__).parents[3] / "schemas" / "avsc"
HEADER_BYTES: Final = 10
_MALFORMED_AVRO: Final = (
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    struct.error,
)


class Undecodable(ValueError):
    """Bytes that are no record of ours. ``outcome`` is the refusal that they deserve in an updates topic.

    ``schema`` is what they name where something else belongs there.
    """

    def __init__(self, why: str, outcome: str = "undecodable", schema: Schema | None = None) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.schema = schema


@dataclass(frozen=True, slots=True)
class Schema:
    """One released schema. ``header`` is ten bytes, ``sha256`` of the full ``text``, ``parsed`` is the library's."""

    name: str
    version: int
    header: bytes
    sha256: bytes
    parsed: Any
    text: Any


@cache
def schemas() -> dict[bytes, Schema]:
    """Every released schema by its header."""
    found = {}
    for entry in _SCHEMAS.iterdir():
        if entry.name.endswith(".avsc"):
            text = json.loads(entry.read_bytes())
            canonical_form = to_parsing_canonical_form(fastavro.parse_schema(text, _write_hint=False))
            header = b"\xc3\x01" + bytes.fromhex(fingerprint(canonical_form, "CRC-64-AVRO"))
            number = int(entry.name.removesuffix(".avsc").rpartition(".v")[2])
            sha256 = hashlib.sha256(rfc8785.dumps(text)).digest()
            found[header] = Schema(text["name"], number, header, sha256, fastavro.parse_schema(text), text)
    return found


@cache
def _schema(name: str, version: int) -> Schema:
    """A record's schema of that version, 0 for the newest; ValueError where there is none."""
    known = (one for one in schemas().values() if one.name == name and version in {0, one.version})
    return max(known, key=lambda one: one.version)


@cache
def _version_with(name: str, fields: frozenset[str]) -> int:
    """The newest version of a record that has these fields and no others; 0 where none has."""
    fitting = [
        one.version
        for one in schemas().values()
        if one.name == name and fields == {field["name"] for field in one.text["fields"]}
    ]
    return max(fitting, default=0)


def encode(name: str, record: dict[str, Any], *, version: int = 0) -> bytes:
    """A record by that ``version`` of its name, or else by the one with just its fields, header included."""
    schema = _schema(name, version or _version_with(name, frozenset(record)))
    out = io.BytesIO()
    out.write(schema.header)
    fastavro.schemaless_writer(out, schema.parsed, record)
    return out.getvalue()


def schema_of(data: bytes) -> Schema:
    """The schema that single-object bytes name; ``Undecodable`` where they name none of ours."""
    if len(data) < HEADER_BYTES or data[:2] != b"\xc3\x01":
        raise Undecodable("not single-object encoded")
    schema = schemas().get(data[:HEADER_BYTES])
    if schema is None:
        raise Undecodable("unknown schema fingerprint", "unknown_schema")
    return schema


def decode(data: bytes, name: str, *, canonical: bool = False) -> dict[str, Any]:
    """The record in single-object bytes; ``Undecodable`` unless they are one whole record called ``name``.

    With ``canonical`` they have to be its one encoding.
    """
    schema = schema_of(data)
    if schema.name != name:
        raise Undecodable(f"expected a {name}, got a {schema.name}", schema=schema)
    if canonical:
        try:
            return exact.read(data[HEADER_BYTES:], schema.text, counted=name == "ClientUpdate")
        except exact.NotCanonical as error:
            raise Undecodable(f"not the one encoding of a {name}: {error}") from error
    counted = name == "ClientUpdate" and len(data) > UNCOUNTED_BYTES_MAX
    body = _CountedReads(data) if counted else io.BytesIO(data)
    body.seek(HEADER_BYTES)
    try:
        record = fastavro.schemaless_reader(body, schema.parsed, None)
    except _MALFORMED_AVRO as error:
        raise Undecodable(f"not a whole {name}: {type(error).__name__}") from error
    if body.tell() != len(data):
        raise Undecodable(f"bytes to spare after a {name}")
    return dict(record)  # type: ignore[arg-type]


def version_of(data: bytes) -> int:
    """The version of the schema that single-object bytes name; ``Undecodable`` where they name none."""
    return schema_of(data).version


class _CountedReads(io.BytesIO):
    """Bytes that can be read from so many times only."""

    left = READS_MAX

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ValueError once there were ``READS_MAX``."""
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many items")
        return super().read(size)
