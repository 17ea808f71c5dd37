"""Envelopes: the signature covers raw bytes, the kind and the full schema."""

from __future__ import annotations

import hashlib

import pytest

from aggregation.fold.rules import CANONICAL_RULES, TASK_RULES
from schemas import avro as codec
from schemas.certificates import Role
from schemas.envelope import ENVELOPE, open_envelope, read_envelope
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from tests.factories import DOMAIN, certificate, device_signer, key, sha, update_record

SIGNER = device_signer("d-1")
SEALED = SIGNER.sign("ClientUpdate", update_record("d-1"))
PUBLIC = key("eu/device/d-1").public_key()


def test_a_sealed_record_opens_and_verifies() -> None:
    envelope = open_envelope(SEALED)
    assert envelope.kind == "ClientUpdate"
    assert envelope.record["device_id"] == "d-1"
    assert envelope.certificate == certificate("eu", Role.DEVICE, "d-1")
    assert envelope.signed_by(PUBLIC, FIRST_DOMAIN)
    assert not envelope.signed_by(key("eu/device/d-2").public_key(), FIRST_DOMAIN)


def test_what_is_signed_is_domain_schema_and_payloads_hash() -> None:
    payload = codec.encode("ClientUpdate", update_record("d-1"))
    schema = codec.schema_of(payload).sha256
    expected = b"fluvial/ClientUpdate/v1\0" + schema + hashlib.sha256(payload).digest()
    assert FIRST_DOMAIN.signed_bytes("ClientUpdate", schema, payload) == expected
    PUBLIC.verify(open_envelope(SEALED).signature, expected)


def test_since_v5_what_is_signed_names_the_task() -> None:
    payload = codec.encode("ClientUpdate", update_record("d-1"))
    schema = codec.schema_of(payload).sha256
    named = bytes.fromhex(sha("genesis"))
    expected = b"fluvial/ClientUpdate/v2\0" + named + schema + hashlib.sha256(payload).digest()
    assert DOMAIN.signed_bytes("ClientUpdate", schema, payload) == expected
    envelope = open_envelope(SIGNER.of_task(DOMAIN).sign("ClientUpdate", update_record("d-1")))
    PUBLIC.verify(envelope.signature, expected)
    another = SignatureDomain.of(TASK_RULES, sha("another genesis"))
    assert [envelope.signed_by(PUBLIC, one) for one in (DOMAIN, another, FIRST_DOMAIN)] == [
        True,
        False,
        False,
    ]
    assert not open_envelope(SEALED).signed_by(PUBLIC, DOMAIN)


@pytest.mark.parametrize(
    ("version", "named"), [(0, b""), (1, bytes(32)), (2, b""), (2, bytes(31)), (3, bytes(32))]
)
def test_there_is_no_other_domain(version: int, named: bytes) -> None:
    with pytest.raises(ValueError, match="no signature domain"):
        SignatureDomain(version, named)


def test_equal_records_give_equal_bytes() -> None:
    again = SIGNER.sign("ClientUpdate", update_record("d-1"))
    assert hashlib.sha256(again).digest() == hashlib.sha256(SEALED).digest()


def test_an_envelope_can_be_verified_without_decoding_its_payload() -> None:
    payload = codec.schema_for("ClientUpdate").header + b"not a body"
    closed = read_envelope(SIGNER.sign_payload("ClientUpdate", payload), CANONICAL_RULES)
    assert closed.signed_by(PUBLIC, FIRST_DOMAIN)
    with pytest.raises(codec.CodecError, match="ClientUpdate"):
        closed.open(CANONICAL_RULES)


def test_a_payload_of_another_kind_is_refused() -> None:
    fields = {
        "kind": "Barrier",
        "payload": open_envelope(SEALED).payload,
        "certificate": b"",
        "signature": b"",
    }
    with pytest.raises(codec.CodecError, match="the payload is a ClientUpdate"):
        open_envelope(codec.encode(ENVELOPE, fields))


def test_a_bare_record_is_not_an_envelope() -> None:
    with pytest.raises(codec.CodecError, match="expected a SignedEnvelope"):
        open_envelope(codec.encode("ClientUpdate", update_record("d-1")))


def test_a_payload_of_an_unknown_schema_is_told_apart() -> None:
    fields = {"kind": "X", "payload": b"\xc3\x01" + bytes(8), "certificate": b"", "signature": b""}
    with pytest.raises(codec.UnknownSchemaError):
        read_envelope(codec.encode(ENVELOPE, fields), CANONICAL_RULES)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 1000])
def test_a_signature_of_another_length_is_only_a_wrong_signature(length: int) -> None:
    payload = open_envelope(SEALED).payload
    fields = {"kind": "ClientUpdate", "payload": payload, "certificate": b"", "signature": b"s" * length}
    assert not read_envelope(codec.encode(ENVELOPE, fields), CANONICAL_RULES).signed_by(PUBLIC, FIRST_DOMAIN)
