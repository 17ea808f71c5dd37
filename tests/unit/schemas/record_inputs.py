"""Records for tests of how they are read: a good update, and others with one thing changed."""

from __future__ import annotations

from typing import Any

from schemas import avro as codec
from schemas.envelope import ENVELOPE, Signer, open_envelope
from schemas.records import decode_record
from tests.factories import NOW_MS, delta, device_signer, encoded, policy, trust, update_bytes, update_record

TRUST = trust()
DEVICE = "d-0001"
GOOD = update_bytes(DEVICE)
POLICY = policy()


def event_of(value: bytes | None, timestamp_ms: int = NOW_MS) -> Any:
    return decode_record(value, timestamp_ms, TRUST, POLICY)


def tensors(**changed: Any) -> list[dict[str, Any]]:
    """The good tensors with the last one changed."""
    entries = [
        {"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in encoded(delta(0))
    ]
    return [*entries[:-1], entries[-1] | changed]


def signed(by: Signer | None = None, **fields: Any) -> bytes:
    """A ClientUpdate with fields spoiled after the record was built."""
    return (by or device_signer(DEVICE)).sign("ClientUpdate", update_record(DEVICE) | fields)


def reenveloped(**changed: Any) -> bytes:
    """The good update in an envelope of which one field was changed."""
    envelope = open_envelope(GOOD)
    fields = {
        "kind": envelope.kind,
        "payload": envelope.payload,
        "certificate": envelope.certificate,
        "signature": envelope.signature,
    }
    return codec.encode(ENVELOPE, fields | changed)
