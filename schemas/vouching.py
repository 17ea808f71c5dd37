r"""Which verdicts a worker vouches for: a head, in a Kafka header of one of its verdict records (ADR 34).

A verdict is derived and unsigned, so anybody who may write to the topic can plant one. A head is signed by a worker of
the region. It says: the log reached ``next_offset``, I judged every offset of a stretch, and these are the verdicts.
Verdicts' own bytes are what they were, and who knows nothing of heads reads the topic as ever.

The header's value, all numbers little-endian::

    u8   1                      the format
    u16  length of the certificate, and so many bytes: X.509, DER
    i64  first_offset           the body begins here
    i64  next_offset            above first_offset
    32   verdicts_sha256
    u16  how many offsets of the stretch were skipped, and as many i64, ascending
    64   signature              Ed25519

    signed:  "fluvial/verdicts-head/v1\0" ‖ genesis SHA-256 (32) ‖ u8 length ‖ region ‖ u32 partition ‖ body

``verdicts_sha256`` is the SHA-256 over the marks of the stretch, one an offset, in order. A mark is the first 16 bytes
of the SHA-256 of a verdict's bytes; of a Verdict v1, of the same verdict without its words (``detail`` empty).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature

from aggregation.reasons import NOTHING
from schemas.certificates import CERTIFICATE_BYTES_MAX, BadCertificateError, Identity, Role, Trust
from schemas.verdicts import encode_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.fold.events import Verdict
    from aggregation.fold.rules import RecordRules
    from aggregation.server.aggregates import Slot
    from schemas.envelope import Signer

HEADER: Final = "fluvial-verdicts-head"
DOMAIN: Final = b"fluvial/verdicts-head/v1\0"
FORMAT: Final = 1
MARK_BYTES: Final = 16
SKIPPED_MAX: Final = 64
"""Skipped offsets that one head names; a worker writes a head with every verdict that says so."""

_SIGNATURE_BYTES: Final = 64
_START: Final = struct.Struct("<BH")
_BODY: Final = struct.Struct("<qq32sH")
_OFFSET_BYTES: Final = 8
HEAD_BYTES_MAX: Final = (
    _START.size + CERTIFICATE_BYTES_MAX + _BODY.size + _OFFSET_BYTES * SKIPPED_MAX + _SIGNATURE_BYTES
)


def mark_of(verdict: Verdict, value: bytes, rules: RecordRules) -> bytes:
    """16 bytes, equal for verdicts that say the same; ``value`` is the verdict by the task's ``rules``."""
    if rules.verdicts == 1:
        value = encode_verdict(replace(verdict, because=NOTHING), rules)
    return hashlib.sha256(value).digest()[:MARK_BYTES]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The offsets ``first_offset`` to ``next_offset`` - 1 of a partition, and what their verdicts come to.

    ``verdicts_sha256`` is 32 bytes; ``skipped`` are those of the offsets that an operator had skipped, ascending.
    """

    first_offset: int
    next_offset: int
    verdicts_sha256: bytes
    skipped: tuple[int, ...] = ()

    def body(self) -> bytes:
        """What is signed of it."""
        start = _BODY.pack(self.first_offset, self.next_offset, self.verdicts_sha256, len(self.skipped))
        return start + struct.pack(f"<{len(self.skipped)}q", *self.skipped)


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """Which log a head speaks of: the task's genesis document, by its hash (32 bytes), and the partition."""

    genesis_sha256: bytes
    slot: Slot

    @classmethod
    def of(cls, genesis: bytes, slot: Slot) -> HeadPlace:
        """From the genesis document's bytes."""
        return cls(hashlib.sha256(genesis).digest(), slot)

    def signed(self, body: bytes) -> bytes:
        """What a signature covers."""
        region = self.slot[0].encode()
        where = bytes((len(region),)) + region + struct.pack("<I", self.slot[1])
        return DOMAIN + self.genesis_sha256 + where + body


@dataclass(frozen=True, slots=True)
class ClaimedHead:
    """A head as somebody wrote it. It says nothing until ``voucher`` says who signed it."""

    stretch: Stretch
    certificate: bytes
    signature: bytes

    def voucher(self, timestamp_ms: int, trust: Trust, place: HeadPlace) -> Identity | None:
        """The worker of the place's region that signed this for the place; None for everybody else.

        ``timestamp_ms``: the LogAppendTime of the record whose header it is; the certificate has to be valid then.
        """
        try:
            signer = trust.identify(self.certificate)
        except BadCertificateError:
            return None
        if (signer.region, signer.role) != (place.slot[0], Role.WORKER) or not signer.valid_at(timestamp_ms):
            return None
        try:
            signer.public_key.verify(self.signature, place.signed(self.stretch.body()))
        except InvalidSignature:
            return None
        return signer


def sign_head(stretch: Stretch, signer: Signer, place: HeadPlace) -> bytes:
    """The value of the header."""
    body = stretch.body()
    start = _START.pack(FORMAT, len(signer.certificate)) + signer.certificate
    return start + body + signer.key.sign(place.signed(body))


def head_in(headers: Sequence[tuple[str, bytes]]) -> ClaimedHead | None:
    """The head in a record's headers; None where there is none, more than one, or one that is not well-formed."""
    found = [value for name, value in headers if name == HEADER]
    if len(found) != 1 or len(found[0]) > HEAD_BYTES_MAX:
        return None
    return _read(found[0])


def _read(value: bytes) -> ClaimedHead | None:
    if len(value) < _START.size or value[0] != FORMAT:
        return None
    at = _START.size + _START.unpack_from(value)[1]
    if len(value) < at + _BODY.size + _SIGNATURE_BYTES:
        return None
    first, after, sha256, count = _BODY.unpack_from(value, at)
    end = at + _BODY.size + _OFFSET_BYTES * count
    if count > SKIPPED_MAX or len(value) != end + _SIGNATURE_BYTES:
        return None
    skipped = struct.unpack_from(f"<{count}q", value, at + _BODY.size)
    bounds = (first - 1, *skipped, after)
    if not 0 <= first < after or any(one >= other for one, other in pairwise(bounds)):
        return None
    return ClaimedHead(Stretch(first, after, sha256, skipped), value[_START.size : at], value[end:])
