"""Heads among verdicts: what a worker of the region signed about them, read by means of its own.

A record of a verdicts topic may have a Kafka header ``fluvial-verdicts-head``; ``schemas/README.md`` says what it
holds. A head counts if it is its record's only one, whole, and signed by a worker of the region whose certificate was
valid then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature

from fluvial.proof.checker.report import Slot
from fluvial.proof.checker.task import Task

NAME: Final = "fluvial-verdicts-head"
_SKIPPED_MAX: Final = 64
_CERTIFICATE_BYTES_MAX: Final = 4096

HeadEntry = tuple[int, bytes]
"""(LogAppendTime in ms, the header's value), of a record that has one such header."""

Heads = Mapping[tuple[str, int], Iterable[HeadEntry]]
"""The heads of each partition of the verdicts topics, by (topic, partition)."""


class _NoHead(Exception):
    """Not what the documents say."""


@dataclass(frozen=True, slots=True)
class Head:
    """The offsets ``first`` to ``after`` - 1, the SHA-256 of their verdicts' marks, and those that were skipped."""

    first: int
    after: int
    sha256: bytes
    skipped: frozenset[int]
    worker: str = field(compare=False)


def head_entry(headers: Iterable[tuple[str, bytes | None]], timestamp_ms: int) -> HeadEntry | None:
    """The head in a record's headers; None where there is none, or several."""
    values = [value for name, value in headers if name == NAME]
    return (timestamp_ms, values[0] or b"") if len(values) == 1 else None


def heads_of(task: Task, slot: Slot, entries: Iterable[HeadEntry]) -> set[Head]:
    """The heads that count, each once."""
    found = set()
    for timestamp_ms, value in entries:
        try:
            found.add(_opened(task, slot, timestamp_ms, value))
        except _NoHead:
            continue
    return found


def _opened(task: Task, slot: Slot, timestamp_ms: int, value: bytes) -> Head:
    length = int.from_bytes(value[1:3], "little")
    certificate, body, signature = value[3 : 3 + length], value[3 + length : -64], value[-64:]
    if value[:1] != b"\1" or length > _CERTIFICATE_BYTES_MAX or len(body) < 50:  # noqa: PLR2004
        raise _NoHead
    first, after = (int.from_bytes(body[at : at + 8], "little", signed=True) for at in (0, 8))
    count = int.from_bytes(body[48:50], "little")
    if len(body) != 50 + 8 * count or count > _SKIPPED_MAX or not 0 <= first < after:
        raise _NoHead
    skipped = [int.from_bytes(body[at : at + 8], "little", signed=True) for at in range(50, len(body), 8)]
    inside = all(first <= offset < after for offset in skipped)
    if not inside or skipped != sorted(set(skipped)):
        raise _NoHead
    signer = task.notary.signer_of(certificate)
    if signer is None or (signer.region, signer.role) != (slot[0], "worker"):
        raise _NoHead
    if not signer.not_before_ms <= timestamp_ms <= signer.not_after_ms:
        raise _NoHead
    region = slot[0].encode()
    where = bytes([len(region)]) + region + slot[1].to_bytes(4, "little")
    genesis = bytes.fromhex(task.genesis_sha256)
    try:
        signer.key.verify(signature, b"fluvial/verdicts-head/v1\0" + genesis + where + body)
    except InvalidSignature:
        raise _NoHead from None
    return Head(first, after, body[16:48], frozenset(skipped), f"{signer.name} ({signer.serial})")


def digest_of(marks: Iterable[bytes]) -> bytes:
    """What a head's SHA-256 is over."""
    return hashlib.sha256(b"".join(marks)).digest()
