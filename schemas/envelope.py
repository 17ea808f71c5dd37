"""Signing and opening envelopes. The signature is over raw bytes, never over re-encoded data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature

from aggregation.fold.rules import FIRST_RULES, RecordRules
from aggregation.reasons import Reason, because
from schemas import avro as codec
from schemas import canonical, quick

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from schemas.signing import SignatureDomain

ENVELOPE: Final = "SignedEnvelope"
KIND_SHOWN_MAX: Final = 64
"""Characters of a kind in a verdict: anybody may write any."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and the certificate (DER) that vouches for it. It signs nothing until it is said for which task.

    ``key`` is whoever signs with it: a key in this process, or one that lies in a token (``backends.key_providers``).
    """

    certificate: bytes
    key: Ed25519PrivateKey

    def of_task(self, domain: SignatureDomain) -> Signer:
        """Who signs with it for a task: ``genesis.domain`` says which."""
        return Signer(self.certificate, self.key, domain)


@dataclass(frozen=True, slots=True)
class Signer(KeyPair):
    """A key pair that signs for one task."""

    domain: SignatureDomain

    def sign(self, kind: str, record: dict[str, Any]) -> bytes:
        """Encode ``record`` as ``kind`` and wrap it in a signed envelope."""
        return self.sign_payload(kind, codec.encode(kind, record))

    def sign_payload(self, kind: str, payload: bytes) -> bytes:
        """Wrap encoded bytes, whose header names a schema of ``kind``, in a signed envelope.

        Bytes that name no schema are signed as if they were of the newest.
        """
        schema = codec.registry().get(payload[: codec.HEADER_BYTES], codec.schema_for(kind))
        signature = self.key.sign(self.domain.signed_bytes(kind, schema.sha256, payload))
        envelope = {"kind": kind, "payload": payload, "certificate": self.certificate, "signature": signature}
        return codec.encode(ENVELOPE, envelope)


@dataclass(frozen=True, slots=True)
class ClosedEnvelope:
    """An envelope whose payload is named by its header, but not decoded yet.

    It can be verified at little cost. Where ``read_update`` read it, ``payload`` is a view, to be hashed and opened.
    """

    kind: str
    schema: codec.Schema
    payload: bytes
    certificate: bytes
    signature: bytes

    def signed_by(self, key: Ed25519PublicKey, domain: SignatureDomain) -> bool:
        """Whether ``key`` made the signature over these very bytes, for that task."""
        try:
            key.verify(self.signature, domain.signed_bytes(self.kind, self.schema.sha256, self.payload))
        except InvalidSignature:
            return False
        return True

    def open(self, rules: RecordRules) -> Envelope:
        """Decode the payload by the task's rules. Raises ``codec.CodecError``."""
        payload = self.payload
        record = quick.update_in(payload, self.schema) if quick.is_view(payload) else None
        if record is None:
            record = _decoded(bytes(payload), self.schema, rules)
        return Envelope(self.kind, self.schema, payload, self.certificate, self.signature, record)


@dataclass(frozen=True, slots=True)
class Envelope(ClosedEnvelope):
    """An opened envelope: decoded; whether it was verified is up to who opened it."""

    record: dict[str, Any]


def read_envelope(data: bytes, rules: RecordRules) -> ClosedEnvelope:
    """Decode an envelope, but not the payload in it.

    A forger's bytes should cost no more than a look at them. The ``rules`` are those of its task: ``Trust.rules``.

    Raises ``codec.UnknownSchemaError`` or ``codec.CodecError``.
    """
    outer = codec.schema_of(data)
    if outer.name != ENVELOPE:
        raise codec.CodecError(because(Reason.ANOTHER_RECORD, ENVELOPE, outer.name), outer)
    fields = _decoded(data, outer, rules)
    schema = codec.schema_of(fields["payload"])
    if schema.name != fields["kind"]:
        why = because(Reason.ANOTHER_KIND, fields["kind"][:KIND_SHOWN_MAX], schema.name)
        raise codec.CodecError(why, schema)
    return ClosedEnvelope(
        fields["kind"], schema, fields["payload"], fields["certificate"], fields["signature"]
    )


def read_update(data: bytes, rules: RecordRules) -> ClosedEnvelope:
    """As ``read_envelope``; the payload of an ordinary ClientUpdate is a view, and what it holds is not copied."""
    parts = quick.parts_of(data)
    if parts is None:
        return read_envelope(data, rules)
    schema = codec.registry().get(bytes(parts[0][: codec.HEADER_BYTES]))
    if schema is None or schema.name != quick.KIND:
        return read_envelope(data, rules)  # which says what is wrong
    return ClosedEnvelope(quick.KIND, schema, *parts)


def kind_of(data: bytes) -> str:
    """The kind that an envelope says it is, at the cost of a look at its first bytes; "" for what is none."""
    start, at = codec.schema_for(ENVELOPE).header, codec.HEADER_BYTES
    if not data.startswith(start) or len(data) <= at or data[at] & 1 or data[at] > KIND_SHOWN_MAX:
        return ""
    return data[at + 1 : at + 1 + (data[at] >> 1)].decode("ascii", "replace")


def _decoded(data: bytes, schema: codec.Schema, rules: RecordRules) -> dict[str, Any]:
    return canonical.decode(data, schema) if rules.canonical else codec.decode(data)[1]


def open_envelope(data: bytes) -> Envelope:
    """Decode an envelope and the payload in it as leniently as the first rules: to show a record, never to judge it.

    Raises ``codec.UnknownSchemaError`` or ``codec.CodecError``.
    """
    return read_envelope(data, FIRST_RULES).open(FIRST_RULES)
