"""Reading policies: from the TOML that people write, and from documents, whose bytes are what a hash names.

A document says its format; one without says v1 (``v1``). People's TOML may leave the format out: it is then read as the
newest, or as the format that the caller names, such as that of a task which exists already.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
import rfc8785

from aggregation.defences import DEFENCES
from aggregation.errors import UsageProblem
from aggregation.policy import v1, v2, v3, v4, v5, v6
from aggregation.policy.checks import (
    BY_EXAMPLES,
    HINT,
    check,
    check_filled,
    check_kind_of_v5,
    check_weights,
    refused,
)
from aggregation.policy.policy import Policy
from aggregation.policy.v1 import DocumentV1, meaning_of_v1
from aggregation.policy.v2 import DocumentV2
from aggregation.policy.v3 import DocumentV3, StalenessPolicy, as_v2, meaning_of_v2
from aggregation.policy.v4 import DocumentV4, as_v3, meaning_of_v3
from aggregation.policy.v5 import DocumentV5, as_v4, meaning_of_v4
from aggregation.policy.v6 import DocumentV6, as_v5, meaning_of_v5
from aggregation.weights.divisors.weights import ByWeights
from aggregation.weights.staleness import staleness_weights

NEWEST: Final = v6.FORMAT
POLICIES_CACHED_MAX: Final = 32
"""A task has few policies, and every partition and version asks for the same ones."""
BYTE_ORDER_MARK: Final = "\ufeff"
DOCUMENT_HINT: Final = "documents are written by `fluvial task create`, from TOML: see docs/policy.md"
ANOMALY_HINT: Final = (
    'since v3 what was [anomaly] is [defence] with kind = "peers" (enabled = false: kind = "none"); '
    'or write format = "fluvial/policy/v2"'
)
UPGRADE_HINT: Final = (
    "a later format needs a later Fluvial: upgrade this process; docs/policy.md lists the formats"
)

Document = TypeVar("Document", DocumentV1, DocumentV2, DocumentV3, DocumentV4, DocumentV5, DocumentV6)


@dataclass(frozen=True, slots=True)
class Format:
    """How documents of one format are read: what they mean in the newest, and their bytes from keys and values."""

    meaning: Callable[[Mapping[str, Any]], DocumentV6]
    encode: Callable[[DocumentV6], bytes]
    strict: bool
    """Whether a document has to be in canonical form. v1's readers never asked."""
    peers: str = "anomaly"
    """The section with the keys of the defence ``peers``."""


def _meaning_of_v1(document: Mapping[str, Any]) -> DocumentV6:
    return _in_v6(meaning_of_v1(_convert(document, DocumentV1)))


def _encode_v1(meaning: DocumentV6) -> bytes:
    sections = msgspec.to_builtins(as_v2(as_v3(as_v4(as_v5(meaning)))))
    del sections["format"]
    return rfc8785.dumps(msgspec.to_builtins(_convert(sections, DocumentV1)))


def _meaning_of_v2(document: Mapping[str, Any]) -> DocumentV6:
    return _in_v6(_convert(document, DocumentV2))


def _encode_v2(meaning: DocumentV6) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(as_v2(as_v3(as_v4(as_v5(meaning))))))


def _meaning_of_v3(document: Mapping[str, Any]) -> DocumentV6:
    return _in_v6(_convert(document, DocumentV3))


def _encode_v3(meaning: DocumentV6) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(as_v3(as_v4(as_v5(meaning)))))


def _meaning_of_v4(document: Mapping[str, Any]) -> DocumentV6:
    return _in_v6(_convert(document, DocumentV4))


def _encode_v4(meaning: DocumentV6) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(as_v4(as_v5(meaning))))


def _meaning_of_v5(document: Mapping[str, Any]) -> DocumentV6:
    return _in_v6(_convert(document, DocumentV5))


def _encode_v5(meaning: DocumentV6) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(as_v5(meaning)))


def _meaning_of_v6(document: Mapping[str, Any]) -> DocumentV6:
    return _convert(document, DocumentV6)


def _encode_v6(meaning: DocumentV6) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(meaning))


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        v1.FORMAT: Format(_meaning_of_v1, _encode_v1, strict=False),
        v2.FORMAT: Format(_meaning_of_v2, _encode_v2, strict=True),
        v3.FORMAT: Format(_meaning_of_v3, _encode_v3, strict=True, peers="defence"),
        v4.FORMAT: Format(_meaning_of_v4, _encode_v4, strict=True, peers="defence"),
        v5.FORMAT: Format(_meaning_of_v5, _encode_v5, strict=True, peers="defence"),
        v6.FORMAT: Format(_meaning_of_v6, _encode_v6, strict=True, peers="defence"),
    }
)
"""Every format that this version of Fluvial reads, oldest first."""
_DOCUMENTS: Final[Mapping[str, type[DocumentV2 | DocumentV3 | DocumentV4 | DocumentV5 | DocumentV6]]] = {
    v2.FORMAT: DocumentV2,
    v3.FORMAT: DocumentV3,
    v4.FORMAT: DocumentV4,
    v5.FORMAT: DocumentV5,
    v6.FORMAT: DocumentV6,
}
"""Those whose names of families are open: a name that v1 has not may be one of theirs."""


def policy_from_toml(
    text: str, *, overrides: Mapping[str, Any] | None = None, default_format: str = NEWEST
) -> Policy:
    """Read a policy from TOML; a byte order mark at its beginning is left out.

    Raises ``UsageProblem``: FLV-2001 (form), FLV-2002 (meaning), FLV-2003 (overflow), FLV-2005 (format).
    """
    try:
        document = tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem("FLV-2001", f"the policy is not TOML: {error}") from error
    return policy_from_mapping(_merged(document, overrides or {}), default_format=default_format)


def policy_from_mapping(document: Mapping[str, Any], *, default_format: str = NEWEST) -> Policy:
    """Read a policy from nested mappings, sections first: ``{"buffer": {"updates": 20}}``.

    Without a ``format`` key it is of ``default_format``. Staleness weights are derived here, once. Raises as
    ``policy_from_toml``.
    """
    name = document.get("format", default_format)
    chosen = _format(name)
    keys = _with_divisor({key: value for key, value in document.items() if key != "format"})
    meaning = chosen.meaning(keys | ({"format": name} if name != v1.FORMAT else {}))
    check(meaning, chosen.peers)
    check_filled(meaning)
    derived = _with_weights(meaning)
    return _policy(name, chosen.encode(derived), derived)


@lru_cache(maxsize=POLICIES_CACHED_MAX)
def policy_from_canonical(data: bytes) -> Policy:
    """Read a document. The staleness table is taken as it stands, never computed again.

    The policy's hash is that of ``data``. Raises as ``policy_from_toml``.
    """
    try:
        text = data.decode("utf-8")  # json would also take UTF-16, and a byte order mark
        document = json.loads(text, object_pairs_hook=_once_a_format, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageProblem(
            "FLV-2001", f"the policy is not a JSON document: {error}", hint=DOCUMENT_HINT
        ) from error
    if not isinstance(document, dict):
        raise UsageProblem(
            "FLV-2001",
            f"the policy is not a JSON object, it is a {type(document).__name__}",
            hint=DOCUMENT_HINT,
        )
    if document.get("format") == v1.FORMAT:
        raise _wrong_format(
            f"it names {v1.FORMAT!r}, and documents of that format do not say so", DOCUMENT_HINT
        )
    name = document.get("format", v1.FORMAT)
    chosen = _format(name)
    meaning = chosen.meaning(document)
    check(meaning, chosen.peers)
    if len(meaning.staleness.weights) != meaning.staleness.versions_max + 1:
        raise refused(
            "staleness.weights", len(meaning.staleness.weights), "staleness.versions_max + 1 entries"
        )
    check_weights(meaning.staleness.weights)
    if chosen.strict and chosen.encode(meaning) != data:
        raise UsageProblem(
            "FLV-2001", f"the policy is not in the canonical form of {name} (RFC 8785)", hint=DOCUMENT_HINT
        )
    return _policy(name, data, meaning)


def _policy(name: str, document: bytes, meaning: DocumentV6) -> Policy:
    return Policy(
        format=name,
        document=document,
        updates=meaning.updates,
        weights=meaning.weights,
        selection=meaning.selection,
        staleness=meaning.staleness,
        window=meaning.window,
        buffer=meaning.buffer,
        server=meaning.server,
        schedule=meaning.schedule,
        control=meaning.control,
        shares=meaning.shares,
        defence=meaning.defence,
        merge=meaning.merge,
        edges=meaning.edges,
        fixed_point=meaning.fixed_point,
    )


def _format(name: object) -> Format:
    found = FORMATS.get(name) if isinstance(name, str) else None
    if found is None:
        raise _wrong_format(f"its format is {name!r}, known are {', '.join(FORMATS)}")
    return found


def _wrong_format(problem: str, hint: str = UPGRADE_HINT) -> UsageProblem:
    return UsageProblem("FLV-2005", f"the policy is refused: {problem}", hint=hint)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _once_a_format(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if sum(key == "format" for key, _ in pairs) > 1:
        raise _wrong_format("it has two formats", DOCUMENT_HINT)
    return dict(pairs)


def _with_divisor(keys: dict[str, Any]) -> dict[str, Any]:
    """``server.divide_by`` where nobody said one and a guide or examples weigh updates: by their weights."""
    defence, weights, server = keys.get("defence"), keys.get("weights"), keys.get("server", {})
    kind = defence.get("kind") if isinstance(defence, Mapping) else None
    guided = isinstance(kind, str) and kind in DEFENCES and DEFENCES[kind].guided
    weighed = guided or (isinstance(weights, Mapping) and weights.get("by") == BY_EXAMPLES)
    if not weighed or not isinstance(server, Mapping) or "divide_by" in server:
        return keys
    return keys | {"server": {**server, "divide_by": ByWeights.name}}


def _with_weights(meaning: DocumentV6) -> DocumentV6:
    staleness = meaning.staleness
    weights = staleness_weights(staleness.kind, staleness, versions_max=staleness.versions_max)
    check_weights(weights)
    if staleness.weights and staleness.weights != weights:
        raise refused("staleness.weights", staleness.weights, "left out: it is derived from the other keys")
    table: StalenessPolicy = msgspec.structs.replace(staleness, weights=weights)
    return msgspec.structs.replace(meaning, staleness=table)


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _convert(document: Mapping[str, Any], kind: type[Document]) -> Document:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise UsageProblem(
            "FLV-2001", f"the policy is refused: {error}", hint=_hint(document, kind)
        ) from error


def _hint(document: Mapping[str, Any], kind: type[Document]) -> str:
    if kind in {DocumentV3, DocumentV4, DocumentV5, DocumentV6} and "anomaly" in document:
        return ANOMALY_HINT
    later = next((name for name in reversed(tuple(FORMATS)) if _reads_as(name, document)), None)
    return f'that is of a later format: write format = "{later}"' if later else HINT


def _reads_as(name: str, document: Mapping[str, Any]) -> bool:
    kind = _DOCUMENTS.get(name)
    if kind is None:
        return False
    try:
        check(_in_v6(msgspec.convert(dict(document) | {"format": name}, kind)), FORMATS[name].peers)
    except (msgspec.ValidationError, UsageProblem):
        return False
    return True


def _in_v6(document: DocumentV2 | DocumentV3 | DocumentV4 | DocumentV5 | DocumentV6) -> DocumentV6:
    """What a document means in the newest words."""
    if isinstance(document, DocumentV2):
        document = meaning_of_v2(document)
    if isinstance(document, DocumentV3):
        document = meaning_of_v3(document)
    if isinstance(document, DocumentV4):
        document = meaning_of_v4(document)
    if isinstance(document, DocumentV5):
        check_kind_of_v5(document.selection.kind)
        document = meaning_of_v5(document)
    return document
