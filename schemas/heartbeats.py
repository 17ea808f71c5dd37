"""Heartbeats: a device says that it is there, and what it does. For looking only: nothing is folded or decided by them.

A record of ``fl.<task>.heartbeats`` is JSON, not Avro: no reader of a log of updates has to know it. It is canonical
(RFC 8785), ``{"certificate": ..., "heartbeat": {...}, "signature": ...}``, certificate (DER) and signature in base64.
The signature is over the task's domain for ``Heartbeat``, the SHA-256 of ``FORMAT``, and the canonical ``heartbeat``.

``sent_ms`` is the device's own clock: a copy of an old heartbeat says nothing new.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature

from schemas.certificates import Identity, Role

if TYPE_CHECKING:
    from schemas.certificates import Trust
    from schemas.envelope import Signer

FORMAT: Final = "fluvial/heartbeat/v1"
KIND: Final = "Heartbeat"
REASON_CHARACTERS_MAX: Final = 200
_FORMAT_SHA256: Final = hashlib.sha256(FORMAT.encode()).digest()
State = Literal["waiting", "training", "declined"]
"""waiting: for a version, or its turn. declined: its own program says that it takes no part now."""


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device says of itself. ``base_version``: the newest version that it has fetched, -1 for none yet."""

    task: str
    region: str
    device_id: str
    sent_ms: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
    base_version: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 53) - 1)]
    state: State
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)] = ""


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str
    heartbeat: Heartbeat
    signature: str


def seal_heartbeat(beat: Heartbeat, signer: Signer) -> bytes:
    """The record's value."""
    body = _canonical(beat)
    signature = signer.key.sign(signer.domain.signed_bytes(KIND, _FORMAT_SHA256, body))
    texts = [base64.b64encode(data).decode() for data in (signer.certificate, signature)]
    return _canonical(_Sealed(texts[0], beat, texts[1]))


def heartbeat_in(
    value: bytes | None, timestamp_ms: int, trust: Trust, task: str, *, bytes_max: int
) -> tuple[Heartbeat, Identity] | str:
    """The heartbeat in one record and who signed it, or why it is none; ``timestamp_ms`` is its LogAppendTime."""
    if not value or len(value) > bytes_max:
        return "no heartbeat's size"
    try:
        sealed = msgspec.json.decode(value, type=_Sealed)
        certificate = base64.b64decode(sealed.certificate, validate=True)
        signature = base64.b64decode(sealed.signature, validate=True)
        signer = trust.identify(certificate)
        body = _canonical(sealed.heartbeat)
    except (
        msgspec.DecodeError,
        ValueError,
    ) as error:  # base64's errors and a bad certificate are ValueErrors
        return f"not a heartbeat: {error}"
    beat = sealed.heartbeat
    if signer.role is not Role.DEVICE or (signer.region, signer.name) != (beat.region, beat.device_id):
        return "signed by another than the device that it names"
    if beat.task != task or not signer.valid_at(timestamp_ms):
        return "for another task, or signed with a certificate that is not valid"
    try:
        signer.public_key.verify(signature, trust.domain.signed_bytes(KIND, _FORMAT_SHA256, body))
    except InvalidSignature:
        return "the signature is not the device's over this"
    return beat, signer


def _canonical(document: msgspec.Struct) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(document))
