"""One true example of every record: the same bytes each time, made by the code that makes the real ones."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Final

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from aggregation.fold.rules import TASK_RULES
from schemas import avro as codec
from schemas.certificates import CONTROL, Role
from schemas.checkpoints import encode_sums
from schemas.edges import edge_record
from schemas.envelope import ENVELOPE, Signer
from schemas.heartbeats import Heartbeat, seal_heartbeat
from schemas.objects import sha256_hex
from schemas.records import SIGNERS
from schemas.signing import SignatureDomain
from schemas.windows import aggregate_of

TASK: Final = "digits"
REGION: Final = "eu"
EDGE: Final = "eu.e1"
DEVICE: Final = "device-0007"
TIMESTAMP_MS: Final = 1_790_000_000_000
_BEFORE, _AFTER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2036, 1, 1, tzinfo=dt.UTC)
_NAMES: Final = {
    Role.DEVICE: DEVICE,
    Role.WORKER: "worker-eu",
    Role.MERGER: "merger",
    Role.OPERATOR: "operator",
    Role.GUARDIAN: "guardian",
    Role.EDGE: "box-1",
}
_IN_REGION: Final = (Role.DEVICE, Role.WORKER, Role.EDGE)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_WINDOW: Final = {"task": TASK, "region": REGION, "partition": 1}
_VERSION: Final = {
    "task": TASK,
    "region": REGION,
    "version": 4,
    "manifest_sha256": _sha("manifest 4"),
    "model_sha256": _sha("model 4"),
    "policy_sha256": _sha("policy"),
}


def _edge_aggregate() -> dict[str, Any]:
    """Of one update of three weights that an edge's log took."""
    sums = np.array([-3, 700, 12], dtype=np.int64)
    window = RECORDS["RegionalAggregate"] | {
        "region": EDGE,
        "partition": 0,
        "counts": {"accepted": 1},
        "accepted": 1,
        "weight_total": 65536,
        "sum_sha256": sha256_hex(encode_sums(sums)),
        "norms": [],
        "cosines": [],
        "shares": [],
        "buckets": [{"accepted": 1, "weight": 65536}],
        "bases": [{"base": 4, "accepted": 1, "weight": 65536}],
    }
    payload = codec.encode("RegionalAggregate", window)
    return edge_record(aggregate_of(window, payload), payload, _sha("model 4"), sums)


RECORDS: Final[dict[str, dict[str, Any]]] = {
    "ClientUpdate": {
        "task": TASK,
        "region": REGION,
        "device_id": DEVICE,
        "base_version": 3,
        "base_sha256": _sha("model 3"),
        "update_id": "7-3",
        "num_examples": 120,
        "local_loss": 0.41,
        "codec": "int8",
        "tensors": [{"name": "bias", "shape": [3], "scale": 0.0005, "data": b"\x11\x02\x7f"}],
        "client_metrics": {"train_seconds": 0.25},
        "created_at": TIMESTAMP_MS,
    },
    "Barrier": _VERSION | {"reference_sha256": _sha("reference 4"), "floor": 0, "reason": "version"},
    "Tick": _WINDOW | {"window_first_offset": 640},
    "Revoke": {"task": TASK, "device_id": DEVICE, "certificate_serial": "", "reason": "the device was lost"},
    "Skip": _WINDOW | {"offset": 655, "reason": "the fold raised on it"},
    "Pardon": {
        "task": TASK,
        "region": REGION,
        "device_id": DEVICE,
        "until": 40,
        "reason": "its data is mended",
    },
    "Verdict": {
        "offset": 641,
        "outcome": "accepted",
        "detail": "",
        "device_id": DEVICE,
        "update_id": "7-3",
        "base_version": 3,
        "staleness": 1,
        "weight": 46341,
        "clip": 1.0,
        "norm": 0.064,
        "norm_deviations": 0.5,
        "cosine": 0.75,
    },
    "RegionalAggregate": _WINDOW
    | {
        "sequence": 12,
        "first_offset": 640,
        "next_offset": 656,
        "version": 4,
        "policy_sha256": _sha("policy"),
        "counts": {"accepted": 15, "duplicate": 1},
        "accepted": 15,
        "weight_total": 983040,
        "staleness_total": 0,
        "staleness_max": 0,
        "update_bytes": 61440,
        "sum_sha256": _sha("sums"),
        "state_sha256": _sha("state"),
        "contributors_sha256": _sha("contributors"),
        "previous_sha256": _sha("aggregate 11"),
    },
    "ModelAnnouncement": _VERSION,
    "GuideAnnouncement": {
        "task": TASK,
        "version": 4,
        "model_sha256": _sha("model 4"),
        "guide_sha256": _sha("guide 4"),
        "guide_bytes": 5432,
    },
}
RECORDS["EdgeAggregate"] = _edge_aggregate()
DOMAIN: Final = SignatureDomain.of(TASK_RULES, _sha("genesis"))
"""Of the task that the examples are of."""
METRICS: Final[dict[str, Any]] = {
    "kind": "evaluation",
    "schema_version": 1,
    "task": TASK,
    "at_ms": TIMESTAMP_MS,
    "version": 4,
    "accuracy": 0.91,
    "accuracy_worst_decile": 0.82,
    "loss": 0.32,
    "model_sha256": _sha("model 4"),
    "model_bytes": 20480,
    "created_at_ms": TIMESTAMP_MS,
    "evaluated_at_ms": TIMESTAMP_MS + 250,
}


def authorities() -> dict[str, x509.Certificate]:
    """The CAs of the examples' signers."""
    return {name: _authority(name) for name in (CONTROL, REGION)}


def envelope(kind: str) -> dict[str, Any]:
    """The signed envelope around the example of ``kind``, as its fields."""
    value = _signer(SIGNERS[kind]).sign(kind, RECORDS[kind])
    name, fields = codec.decode(value)
    assert name.name == ENVELOPE
    return fields


def heartbeat() -> bytes:
    """A device's heartbeat, signed."""
    update = RECORDS["ClientUpdate"]
    said = Heartbeat(
        update["task"], update["region"], _NAMES[Role.DEVICE], TIMESTAMP_MS, update["base_version"], "waiting"
    )
    return seal_heartbeat(said, _signer(Role.DEVICE))


def avro_json(value: Any) -> Any:
    """A value in Avro's JSON encoding: bytes become text, one character U+0000 to U+00FF a byte."""
    match value:
        case bytes():
            return value.decode("latin-1")
        case dict():
            return {key: avro_json(one) for key, one in value.items()}
        case list():
            return [avro_json(one) for one in value]
        case _:
            return value


def _key(name: str) -> Ed25519PrivateKey:
    """A private key that everybody can derive: it signs examples, and no task trusts it."""
    return Ed25519PrivateKey.from_private_bytes(
        hashlib.sha256(f"key of the example's {name}".encode()).digest()
    )


def _builder(subject: str, issuer: str) -> x509.CertificateBuilder:
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    serial = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") | 1
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(_key(subject).public_key())
        .serial_number(serial)
        .not_valid_before(_BEFORE)
        .not_valid_after(_AFTER)
    )


def _authority(name: str) -> x509.Certificate:
    subject = f"{name} CA"
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return _builder(subject, subject).add_extension(constraints, critical=True).sign(_key(subject), None)


def _signer(role: Role) -> Signer:
    issuer, name = (REGION if role in _IN_REGION else CONTROL), _NAMES[role]
    region = EDGE if role is Role.EDGE else issuer
    uri = x509.UniformResourceIdentifier(f"spiffe://{region}/{role.value}/{name}")
    certificate = (
        _builder(name, f"{issuer} CA")
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(_key(f"{issuer} CA"), None)
    )
    return Signer(certificate.public_bytes(Encoding.DER), _key(name), DOMAIN)
