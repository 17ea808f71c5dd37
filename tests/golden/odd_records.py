"""Odd records of a task with canonical records, and what becomes of each: vectors that stay true for ever.

``odd_records.v1.json`` has for each its bytes, its verdict's fields and its verdict's bytes.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from cryptography import x509

from aggregation import codecs
from aggregation.fold.rules import CANONICAL_RULES
from schemas import avro as codec
from schemas.certificates import Role
from schemas.envelope import ENVELOPE, Signer
from schemas.signing import FIRST_DOMAIN
from schemas.verdicts import encode_verdict
from tests.factories import (
    Site,
    certificate,
    delta,
    device_signer,
    encoded,
    key,
    merger_signer,
    tick_bytes,
    update_bytes,
    update_record,
)

DEVICE = "d-1"
RECORD = codec.encode("ClientUpdate", update_record(DEVICE))
BASE = RECORD.index(b"\x06d-1") + 4
TENSORS = RECORD.index(b"\x08bias") - 1
_LONG_ZERO = b"\x80\x00"


def _payload(at: int, new: bytes, old: int = 1) -> bytes:
    """A signed update whose payload has other bytes at a place."""
    return device_signer(DEVICE).sign_payload("ClientUpdate", RECORD[:at] + new + RECORD[at + old :])


def _with(**fields: Any) -> bytes:
    return device_signer(DEVICE).sign("ClientUpdate", update_record(DEVICE) | fields)


def _by(der: bytes) -> bytes:
    """An update with that certificate, and the device's true signature."""
    return Signer(der, key("eu/device/d-1"), FIRST_DOMAIN).sign_payload("ClientUpdate", RECORD)


def _scaled(scale: float, byte: bytes | None = None) -> bytes:
    tensors = [
        codecs.EncodedTensor(one.name, one.shape, scale, one.data if byte is None else byte * len(one.data))
        for one in encoded(delta(0))
    ]
    return update_bytes(DEVICE, tensors=tensors)


def _map(entries: list[tuple[bytes, bytes]], blocks: bool = False) -> bytes:  # noqa: FBT001, FBT002
    """An update whose metrics are these, each (key, eight bytes), in one block or in one each."""
    whole = codec.encode("ClientUpdate", update_record(DEVICE, client_metrics={}))
    head, tail = whole[:-7], whole[-6:]
    items = [bytes([2 * len(name)]) + name + value for name, value in entries]
    said = b"".join(b"\x02" + item for item in items) if blocks else bytes([2 * len(items)]) + b"".join(items)
    return device_signer(DEVICE).sign_payload("ClientUpdate", head + said + b"\0" + tail)


def _certificates() -> dict[str, bytes]:
    good = certificate("eu", Role.DEVICE, DEVICE)
    signature = x509.load_der_x509_certificate(good).signature
    spoiled = bytearray(good)
    spoiled[40] ^= 0xFF
    return {
        "a certificate with a length in a longer form": _by(b"\x30\x83\x00" + good[2:]),
        "a certificate with a byte to spare": _by(good + b"\0"),
        "a certificate that is cut": _by(good[:100]),
        "a certificate that is text": _by(b"hello"),
        "no certificate": _by(b""),
        "a certificate with a byte changed": _by(bytes(spoiled)),
        "a certificate whose signature has unused bits": _by(
            good.replace(b"\x03\x41\x00" + signature, b"\x03\x41\x01" + signature)
        ),
        "a certificate of another CA": _by(certificate("eu", Role.DEVICE, DEVICE, secret="another")),
        "a certificate of a CA": _by(certificate("eu", Role.DEVICE, DEVICE, is_authority=True)),
        "a certificate with two names": _by(
            certificate("eu", Role.DEVICE, DEVICE, uris=("spiffe://eu/device/d-1", "spiffe://eu/device/d-2"))
        ),
        "a certificate with a name in capitals": _by(
            certificate("eu", Role.DEVICE, DEVICE, uris=("spiffe://eu/device/D-1",))
        ),
        "a certificate up to 2050": _by(
            certificate("eu", Role.DEVICE, DEVICE, not_after=dt.datetime(2050, 1, 1, tzinfo=dt.UTC))
        ),
    }


def odd_records() -> dict[str, bytes]:
    """The records, by what is odd about them; each is the first one of a partition."""
    infinite, minus_zero, odd_nan = (
        b"\0\0\0\0\0\0\xf0\x7f",
        b"\0\0\0\0\0\0\0\x80",
        b"\xde\xad\xbe\xef\0\0\xf8\xff",
    )
    envelope = {"kind": "\U0001fae8", "payload": RECORD, "certificate": b"", "signature": b"s" * 64}
    whole = update_bytes(DEVICE)
    return {
        "nothing odd": whole,
        "base version 0 in two bytes": _payload(BASE, _LONG_ZERO),
        "base version 0 in ten bytes": _payload(BASE, b"\x80" * 9 + b"\0"),
        "base version 0 in eleven bytes": _payload(BASE, b"\x80" * 10 + b"\0"),
        "base version 2**64 in ten bytes": _payload(BASE, b"\x80" * 9 + b"\x02"),
        "base version 2**70 in eleven bytes": _payload(BASE, b"\x80" * 10 + b"\x02"),
        "base version 2**63 - 1": _with(base_version=2**63 - 1),
        "base version -2**63": _with(base_version=-(2**63)),
        "a payload that is cut": _payload(50, b"", len(RECORD)),
        "a payload of a header alone": _payload(10, b"", len(RECORD)),
        "a payload with a byte to spare": _payload(len(RECORD), b"\0"),
        "a string that is not UTF-8": _payload(10, b"\x0c\xffigits", 7),
        "a string with a surrogate": _payload(10, b"\x06\xed\xa0\x80", 7),
        "a string in a longer form of UTF-8": _payload(10, b"\x04\xc0\x80", 7),
        "a string with U+0000": _with(task="\0"),
        "a task of a character that is new": _with(task="\U0001fae8"),
        "a task that moves the cursor": _with(task="\x1b[2J"),
        "a negative length": _payload(10, b"\x03"),
        "a length of 2**62": _payload(10, b"\x80" * 8 + b"\x80\x01"),
        "a length in two bytes": _payload(10, b"\x8c\x00"),
        "an array's block with its size": _payload(TENSORS, b"\x05\x02"),
        "a map in two blocks": _map([(b"a", bytes(8)), (b"b", bytes(8))], blocks=True),
        "a map with a key twice": _map([(b"a", bytes(8)), (b"a", bytes(8))]),
        "a map with its keys in another order": _map([(b"b", bytes(8)), (b"a", bytes(8))]),
        "a metric that is infinite": _map([(b"a", infinite)]),
        "a metric that is minus zero": _map([(b"cohort", minus_zero)]),
        "a metric that is an odd NaN": _map([(b"a", odd_nan)]),
        "an enum without such a symbol": _payload(TENSORS - 1, b"\x04"),
        "a scale that is NaN": _scaled(float("nan")),
        "a scale that is minus zero": _scaled(-0.0),
        "the level -128 of int8": _scaled(1.0 / 128, b"\x80"),
        "created in the year 1": _with(created_at=-62_135_596_800_000),
        "created in the year 0": _with(created_at=-62_135_596_800_001),
        "created in the year 9999": _with(created_at=253_402_300_799_999),
        "created in the year 10000": _with(created_at=253_402_300_800_000),
        "an envelope with a byte to spare": whole + b"\0",
        "an envelope with a length in two bytes": whole[:10] + b"\x98\x00" + whole[11:],
        "an envelope of a kind that is new": codec.encode(ENVELOPE, envelope),
        "no bytes": b"",
        "a forged tick": tick_bytes(0, by=merger_signer()),
        **_certificates(),
    }


def vectors() -> bytes:
    """The file."""
    found = []
    for name, value in odd_records().items():
        verdict = Site().append(value)
        why = verdict.because
        found.append(
            {
                "name": name,
                "record": value.hex(),
                "outcome": verdict.outcome,
                "reason": why.reason.code,
                "values": why.named,
                "forged": why.forged,
                "device_id": verdict.device_id,
                "verdict": encode_verdict(verdict, CANONICAL_RULES).hex(),
            }
        )
    return json.dumps(found, indent=1).encode() + b"\n"
