"""Reading a document of whatever released format, and writing one. Canonical JSON (RFC 8785) in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import rfc8785

from aggregation.errors import IntegrityProblem
from schemas.documents import (
    genesis_v1,
    genesis_v2,
    genesis_v3,
    genesis_v4,
    genesis_v5,
    genesis_v6,
    manifest_v1,
    manifest_v2,
    manifest_v3,
)

Formats = Mapping[str, type[msgspec.Struct]]

GENESIS_FORMATS: Final[Formats] = {
    genesis_v1.FORMAT: genesis_v1.GenesisV1,
    genesis_v2.FORMAT: genesis_v2.GenesisV2,
    genesis_v3.FORMAT: genesis_v3.GenesisV3,
    genesis_v4.FORMAT: genesis_v4.GenesisV4,
    genesis_v5.FORMAT: genesis_v5.GenesisV5,
    genesis_v6.FORMAT: genesis_v6.GenesisV6,
}
MANIFEST_FORMATS: Final[Formats] = {
    manifest_v1.FORMAT: manifest_v1.ManifestV1,
    manifest_v2.FORMAT: manifest_v2.ManifestV2,
    manifest_v3.FORMAT: manifest_v3.ManifestV3,
}


def encode_document(keys: Mapping[str, Any], formats: Formats) -> bytes:
    """The canonical bytes of these keys and values in the format that they name."""
    return rfc8785.dumps(msgspec.to_builtins(msgspec.convert(keys, formats[keys["format"]])))


def decode_document(data: bytes, formats: Formats, what: str) -> dict[str, Any]:
    """The keys and values of a document, checked against its format; ``what`` it is: "genesis", "manifest".

    Raises IntegrityProblem FLV-4102: no JSON, an unknown format or two, a key of another format, no canonical form.
    """
    try:
        named = json.loads(data.decode("utf-8"), object_pairs_hook=_once_a_format)
    except (ValueError, RecursionError) as error:
        raise IntegrityProblem("FLV-4102", f"not a {what} document: {error}") from error
    name = named.get("format") if isinstance(named, dict) else None
    kind = formats.get(name) if isinstance(name, str) else None
    if kind is None:
        raise IntegrityProblem(
            "FLV-4102",
            f"not a {what} document: its format is {name!r}, known are {', '.join(formats)}",
            hint="a later format needs a later Fluvial: upgrade this process",
        )
    try:
        document = msgspec.to_builtins(msgspec.json.decode(data, type=kind))
        canonical = rfc8785.dumps(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityProblem("FLV-4102", f"not a {what} document: {error}") from error
    except rfc8785.CanonicalizationError as error:
        raise IntegrityProblem("FLV-4102", f"the {what} document has no canonical form: {error}") from error
    if canonical != data:
        raise IntegrityProblem("FLV-4102", f"the {what} document is not in canonical form")
    return dict(document)


def _once_a_format(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if sum(key == "format" for key, _ in pairs) > 1:
        raise ValueError("it has two formats")
    return dict(pairs)
