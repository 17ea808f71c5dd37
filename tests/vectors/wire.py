"""Vectors of what stands on the wire: schemas, records, envelopes, certificates, and what a record's bytes come to."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

import fastavro
from cryptography.hazmat.primitives.serialization import Encoding
from fastavro.schema import to_parsing_canonical_form

from aggregation.fold.rules import FIRST_RULES
from aggregation.partitioning import murmur2, partition_of
from schemas import avro
from schemas.certificates import BadCertificateError, Role
from schemas.envelope import Signer, read_envelope, signed_bytes
from schemas.windows import encode_state, encode_window
from tests import factories
from tests.factories import TASK, Site, certificate, device_signer, key, signer
from tests.vectors.writing import document, plain

FIELDS: Final[dict[str, dict[str, Any]]] = {
    "Barrier": {
        "task": TASK,
        "region": "eu",
        "version": 3,
        "manifest_sha256": factories.sha("manifest 3"),
        "model_sha256": factories.model_sha(3),
        "reference_sha256": factories.sha("reference 3"),
        "policy_sha256": factories.sha("policy"),
        "floor": 1,
        "reason": "rollback",
    },
    "Tick": {"task": TASK, "region": "eu", "partition": 1, "window_first_offset": 300},
    "Revoke": {"task": TASK, "device_id": "d-0007", "certificate_serial": "", "reason": "stolen"},
    "Skip": {"task": TASK, "region": "eu", "partition": 0, "offset": 7, "reason": "the fold raises on it"},
    "ModelAnnouncement": {
        "task": TASK,
        "region": "eu",
        "version": 3,
        "manifest_sha256": factories.sha("manifest 3"),
        "model_sha256": factories.model_sha(3),
        "policy_sha256": factories.sha("policy"),
    },
}
_SIGNERS: Final = {
    "Barrier": ("control", Role.MERGER, "m-1"),
    "Tick": ("eu", Role.WORKER, "w-1"),
    "Revoke": ("control", Role.OPERATOR, "op-1"),
    "Skip": ("control", Role.OPERATOR, "op-1"),
    "ModelAnnouncement": ("control", Role.MERGER, "m-1"),
}


def schemas() -> dict[str, Any]:
    """Every released schema: its header, its hash, and the text that the fingerprint is of."""
    cases = []
    folder = resources.files("schemas") / "avsc"
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        text = json.loads(entry.read_bytes())
        form = to_parsing_canonical_form(fastavro.parse_schema(text, _write_hint=False))
        name, version = text["name"], int(entry.name.removesuffix(".avsc").rpartition(".v")[2])
        (schema,) = [one for one in avro.schemas_for(name) if one.version == version]
        cases.append(
            {
                "file": entry.name,
                "name": name,
                "version": version,
                "header": schema.header.hex(),
                "sha256": schema.sha256.hex(),
                "canonical_form": form,
            }
        )
    return document(
        "each schema's ten-byte header and SHA-256, and the form that its fingerprint is of", cases
    )


def _derived() -> dict[str, dict[str, Any]]:
    """An aggregate and a state of a window that was really folded."""
    site = Site()
    site.append(factories.update_bytes("d-0001"))
    site.append(factories.revoke_bytes("d-0009"))
    site.append(factories.tick_bytes(0))
    sealed = encode_window(site.state, site.closed[0])
    state = avro.decode(encode_state(site.state))[1]
    verdict = {
        "offset": 12,
        "outcome": "anomalous",
        "detail": "for people",
        "device_id": "d-0001",
        "update_id": "u-é-1",
        "base_version": 2,
        "staleness": -1,
        "weight": 0,
        "clip": 0.0,
        "norm": 0.25,
        "norm_deviations": 7.5,
        "cosine": -0.125,
    }
    aggregate = avro.decode(sealed.payload)[1]
    return {"RegionalAggregate": aggregate, "PartitionState": state, "Verdict": verdict}


def _later_verdict() -> dict[str, Any]:
    """A Verdict v2: a reason and its values, each behind its type's name, in the place of words."""
    verdict = {name: value for name, value in _derived()["Verdict"].items() if name != "detail"}
    values = [{"long": -7}, {"double": 0.5}, {"string": "é"}]
    return verdict | {"reason": 323, "values": values, "forged": ""}


def records() -> dict[str, Any]:
    """Fields and single-object bytes of every record, in every version of its schema."""
    fields = FIELDS | _derived()
    updates = [factories.update_record("d-0001"), factories.update_record("d-0001", codec="int4")]
    envelope = {"kind": "Tick", "payload": b"\x01\x02", "certificate": b"\x03", "signature": bytes(64)}
    rows = [("SignedEnvelope", envelope), *(("ClientUpdate", one) for one in updates), *fields.items()]
    cases = []
    for name, record in rows:
        data = avro.encode(name, record)
        cases.append(
            {
                "schema": name,
                "version": avro.schema_of(data).version,
                "fields": plain(record),
                "bytes": data.hex(),
            }
        )
    later = _later_verdict()
    values = [value for one in later["values"] for value in one.values()]
    data = avro.encode_as("Verdict", 2, later | {"values": values})
    cases.append({"schema": "Verdict", "version": 2, "fields": plain(later), "bytes": data.hex()})
    return document("records by their fields (bytes as hex), and their single-object encoding", cases)


def envelopes() -> dict[str, Any]:
    """Every signed kind, with the key, what is signed, and the whole envelope."""
    rows: list[tuple[str, Signer, str, dict[str, Any]]] = [
        (
            kind,
            signer(*_SIGNERS[kind]),
            "/".join((_SIGNERS[kind][0], _SIGNERS[kind][1].value, _SIGNERS[kind][2])),
            fields,
        )
        for kind, fields in FIELDS.items()
    ]
    for codec in ("int8", "int4"):
        record = factories.update_record("d-0001", codec=codec)
        rows.append(("ClientUpdate", device_signer("d-0001"), "eu/device/d-0001", record))
    cases = []
    for kind, by, name, fields in rows:
        envelope = by.sign(kind, fields)
        closed = read_envelope(envelope)
        cases.append(
            {
                "kind": kind,
                "private_key": key(name).private_bytes_raw().hex(),
                "certificate": closed.certificate.hex(),
                "payload": closed.payload.hex(),
                "signed": signed_bytes(kind, closed.schema.sha256, closed.payload).hex(),
                "signature": closed.signature.hex(),
                "envelope": envelope.hex(),
            }
        )
    return document("signed envelopes: the Ed25519 seed, the bytes that are signed, the signature", cases)


def authorities() -> dict[str, str]:
    """The CAs of the vectors' task, PEM."""
    return {
        region: factories.authority(region).public_bytes(Encoding.PEM).decode()
        for region in ("eu", "us", "control")
    }


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def certificates() -> dict[str, Any]:
    """Certificates that a task's CAs vouch for, and ones that they do not."""
    device = certificate("eu", Role.DEVICE, "d-0001")
    unused = device[:-65] + b"\x01" + device[-64:]
    rows = {
        "a device": device,
        "a worker": certificate("us", Role.WORKER, "w-1"),
        "a merger": certificate("control", Role.MERGER, "m-1"),
        "an operator": certificate("control", Role.OPERATOR, "op-1"),
        "without basic constraints": certificate("eu", Role.DEVICE, "d-0001", is_authority=None),
        "a name of one character": certificate("eu", Role.DEVICE, "d"),
        "a name of 64 characters": certificate("eu", Role.DEVICE, "d" * 64),
        "a name of 65 characters": certificate(
            "eu", Role.DEVICE, "d", uris=(f"spiffe://eu/device/{'d' * 65}",)
        ),
        "a name that ends with a dot": certificate("eu", Role.DEVICE, "d."),
        "a name in capitals": certificate("eu", Role.DEVICE, "D-1"),
        "another CA of the region's name": certificate("eu", Role.DEVICE, "d-0001", secret="other"),
        "the CA of another region": certificate("eu", Role.DEVICE, "d-0001", issuer="us"),
        "a region that the task does not have": certificate("asia", Role.DEVICE, "d-0001"),
        "a device of control": certificate("control", Role.DEVICE, "d-0001"),
        "a merger of a region": certificate("eu", Role.MERGER, "m-1"),
        "an operator of a region": certificate("eu", Role.OPERATOR, "op-1"),
        "no such role": certificate("eu", Role.DEVICE, "d", uris=("spiffe://eu/auditor/d",)),
        "no name": certificate("eu", Role.DEVICE, "d", uris=()),
        "two names": certificate(
            "eu", Role.DEVICE, "d", uris=("spiffe://eu/device/d", "spiffe://eu/device/e")
        ),
        "another scheme": certificate("eu", Role.DEVICE, "d", uris=("https://eu/device/d",)),
        "a path too long": certificate("eu", Role.DEVICE, "d", uris=("spiffe://eu/device/d/e",)),
        "a CA": certificate("eu", Role.DEVICE, "d-0001", is_authority=True),
        "a flipped bit of what is signed": _flip(device, 40),
        "a flipped bit of the signature": _flip(device, len(device) - 1),
        "unused bits said of the signature": unused,
        "cut short": device[:-1],
        "bytes to spare": device + b"\0",
        "nothing": b"",
    }
    trust, cases = factories.trust(rules=FIRST_RULES), []
    for name, der in rows.items():
        case: dict[str, Any] = {"name": name, "der": der.hex()}
        try:
            one = trust.identify(der)
        except BadCertificateError:
            case["identity"] = None
        else:
            case["identity"] = {
                "region": one.region,
                "role": one.role.value,
                "name": one.name,
                "serial": one.serial,
                "not_before_ms": one.not_before_ms,
                "not_after_ms": one.not_after_ms,
                "public_key": one.public_key.public_bytes_raw().hex(),
            }
        cases.append(case)
    return document(
        "certificates (DER): who holds them, or null where the task's CAs do not vouch for them",
        cases,
        authorities=authorities(),
    )


def partitions() -> dict[str, Any]:
    """Keys, their hash and their partition."""
    names = ["", "a", "ab", "abc", "abcd", "abcde", "d-0001", "d-0002", "canary-eu", "x" * 63, "d_1.2-3", "ü"]
    cases = [
        {
            "key": name,
            "murmur2": murmur2(name.encode()),
            "partitions": {str(n): partition_of(name, n) for n in (1, 2, 3, 7, 64)},
        }
        for name in names
    ]
    return document("the 32-bit murmur2 of a key in UTF-8, unsigned, and its partition among so many", cases)
