"""Avro single-object encoding: ``C3 01``, the CRC-64-AVRO fingerprint of the schema, the body.

One ``.avsc`` file a version, never edited after release. A reader looks the writer's schema up by its
fingerprint, so every released version decodes for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import fastavro
import rfc8785
from fastavro.schema import fingerprint, to_parsing_canonical_form

from aggregation.reasons import Because, Reason, because

MARKER: Final = b"\xc3\x01"
FINGERPRINT_BYTES: Final = 8
HEADER_BYTES: Final = len(MARKER) + FINGERPRINT_BYTES
ITEMS_MAX: Final = 200_000
"""Items in one record, as fastavro reads them: some ten a tensor."""
COUNTED: Final = frozenset({"ClientUpdate"})
"""What a device writes; the others that repeat anything (a partition's state) are known by their hash."""
READS_UNCOUNTED_BYTES: Final = 1 << 20
"""Records up to this size are not counted: even one of nothing but empty tensors takes only some 30 MB to decode."""
_MALFORMED: Final = (
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    KeyError,
    TypeError,
    struct.error,
)


class CodecError(ValueError):
    """Bytes that cannot be decoded: not single-object encoded, cut short, or with bytes to spare. ``because`` says.

    ``schema`` is the one that they name, where that is not the one which belongs there.
    """

    def __init__(self, because: Because, schema: Schema | None = None) -> None:
        super().__init__(because.text)
        self.because = because
        self.schema = schema


class UnknownSchemaError(CodecError):
    """Well-formed single-object bytes whose fingerprint is none of ours."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One released schema version. ``sha256`` (32 bytes) is over the full schema in RFC 8785 form.

    ``fields``: the names of its record's fields.
    """

    name: str
    version: int
    header: bytes
    sha256: bytes
    parsed: Any
    fields: frozenset[str]


@cache
def registry() -> dict[bytes, Schema]:
    """Every released schema by its ten-byte header."""
    schemas = {}
    for entry in sorted((resources.files(__package__) / "avsc").iterdir(), key=lambda path: path.name):
        if entry.name.endswith(".avsc"):
            schema = _load(entry.name, entry.read_bytes())
            schemas[schema.header] = schema
    return schemas


@cache
def schemas_for(name: str) -> tuple[Schema, ...]:
    """Every released version of the record ``name``, oldest first; KeyError for a name that has none."""
    versions = [schema for schema in registry().values() if schema.name == name]
    if not versions:
        raise KeyError(name)
    return tuple(sorted(versions, key=lambda schema: schema.version))


def schema_for(name: str) -> Schema:
    """The newest version of the record ``name``; KeyError for a name that has none."""
    return schemas_for(name)[-1]


def encode(name: str, record: dict[str, Any]) -> bytes:
    """Encode ``record`` by the oldest schema of ``name`` that can hold it, header included.

    So readers that know no newer one are told nothing that they cannot read before there is something new to say.
    """
    *older, newest = schemas_for(name)
    for schema in older:
        if not record.keys() <= schema.fields:
            continue  # it would leave something out in silence
        with contextlib.suppress(ValueError):  # a symbol that its enum does not have
            return _encoded(schema, record)
    return _encoded(newest, record)


def encode_as(name: str, version: int, record: dict[str, Any]) -> bytes:
    """Encode ``record`` by that version of ``name``; KeyError for a version that there is none of."""
    schema = next((one for one in schemas_for(name) if one.version == version), None)
    if schema is None:
        raise KeyError(f"{name} v{version}")
    return _encoded(schema, record)


def _encoded(schema: Schema, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(schema.header)
    fastavro.schemaless_writer(out, schema.parsed, record)
    return out.getvalue()


def schema_of(data: bytes) -> Schema:
    """The schema that single-object bytes name, by their header alone.

    Raises ``UnknownSchemaError`` or ``CodecError``.
    """
    header = data[:HEADER_BYTES]
    if len(header) < HEADER_BYTES or not header.startswith(MARKER):
        raise CodecError(because(Reason.NOT_SINGLE_OBJECT))
    schema = registry().get(header)
    if schema is None:
        raise UnknownSchemaError(unknown_schema(header))
    return schema


def unknown_schema(header: bytes) -> Because:
    """What is said of a schema that its reader does not know."""
    return because(Reason.UNKNOWN_FINGERPRINT, header[len(MARKER) :].hex())


def decode(data: bytes) -> tuple[Schema, dict[str, Any]]:
    """Decode single-object bytes by the schema they name, in whatever encoding the library understands.

    For tasks without ``RecordRules.canonical``, and for who only looks. Raises ``CodecError``.
    """
    schema = schema_of(data)
    counted = schema.name in COUNTED and len(data) > READS_UNCOUNTED_BYTES
    body = _CountedBytes(data) if counted else io.BytesIO(data)
    body.seek(HEADER_BYTES)
    try:
        record = fastavro.schemaless_reader(body, schema.parsed, None)
    except _TooManyItemsError as error:
        raise CodecError(because(Reason.TOO_MANY_ITEMS, ITEMS_MAX, schema.name)) from error
    except _MALFORMED as error:
        # What fastavro raises on a body that is cut short or is not of this schema.
        said = type(error).__name__
        raise CodecError(because(Reason.NOT_WHOLE, schema.name, library=said)) from error
    if body.tell() != len(data):
        raise CodecError(because(Reason.BYTES_LEFT, len(data) - body.tell(), schema.name))
    return schema, record  # type: ignore[return-value]


class _TooManyItemsError(Exception):
    """Ends a decoding."""


class _CountedBytes(io.BytesIO):
    """Bytes that end a decoding which wants too many things of them.

    An empty tensor is 11 bytes in a record and 300 in memory, so 8 MB could become hundreds, and take seconds.
    """

    reads_left = ITEMS_MAX

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ``_TooManyItemsError`` once there were ``READS_MAX``."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise _TooManyItemsError
        return super().read(size)


def _load(file_name: str, text: bytes) -> Schema:
    document = json.loads(text)
    canonical_form = to_parsing_canonical_form(fastavro.parse_schema(document, _write_hint=False))
    return Schema(
        name=document["name"],
        version=int(file_name.removesuffix(".avsc").rpartition(".v")[2]),
        header=MARKER + bytes.fromhex(fingerprint(canonical_form, "CRC-64-AVRO")),
        sha256=hashlib.sha256(rfc8785.dumps(document)).digest(),
        parsed=fastavro.parse_schema(document),
        fields=frozenset(field["name"] for field in document["fields"]),
    )
