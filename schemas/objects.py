"""Where things lie in the object store, under ``<task>/``.

Bulk is content-addressed: written under its SHA-256 before any record names it, and checked on every read.
Only ``versions/<n>/`` has names of its own: ``manifest.json`` is created by one conditional PUT, and the rest
of the folder is derived from it, so whoever finds it missing can make it again, bit for bit.
"""

from __future__ import annotations

import hashlib
from typing import Final

SHA256_DIGITS: Final = 64
_DIGITS: Final = frozenset("0123456789abcdef")


def sha256_hex(data: bytes | memoryview) -> str:
    """SHA-256 of ``data``, lower-case hex: how every object, manifest and payload is named."""
    return hashlib.sha256(data).hexdigest()


def is_sha256(name: str) -> bool:
    """Whether a text is 64 hex digits in lower case: what else a record says in a hash's place names nothing."""
    return len(name) == SHA256_DIGITS and not set(name) - _DIGITS


def object_key(task: str, sha256: str) -> str:
    """A content-addressed object: sums, states, references, policies."""
    return f"{task}/objects/{sha256[:2]}/{sha256}"


def manifest_key(task: str, version: int) -> str:
    """A version's manifest; version 0's is the genesis document."""
    return f"{task}/versions/{version}/manifest.json"


def versions_prefix(task: str) -> str:
    """What the keys of all versions begin with."""
    return f"{task}/versions/"


def version_of_manifest(task: str, key: str) -> int | None:
    """The version whose manifest lies under ``key``; None for any other object."""
    number = key.removeprefix(versions_prefix(task)).partition("/")[0]
    return int(number) if number.isdecimal() and key == manifest_key(task, int(number)) else None


def model_key(task: str, version: int) -> str:
    """A version's parameters, safetensors."""
    return f"{task}/versions/{version}/model.safetensors"


def optimizer_key(task: str, version: int) -> str:
    """A version's server optimizer state, safetensors."""
    return f"{task}/versions/{version}/optimizer.safetensors"


def facts_key(task: str, version: int) -> str:
    """Wall-clock facts about a commit, outside what is replayed: advice, never truth."""
    return f"{task}/versions/{version}/facts.json"
