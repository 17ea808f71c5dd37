"""Vectors of what stands on the wire: schemas, records, envelopes, certificates, and what a record's bytes come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from itertools import product
from typing import Any, Final

import fastavro
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding
from fastavro.schema import to_parsing_canonical_form

from aggregation.codecs import direction_of
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from aggregation.partitioning import murmur2, partition_of
from aggregation.policy import Policy
from schemas import avro
from schemas.certificates import BadCertificateError, Role, Trust
from schemas.checkpoints import encode_direction
from schemas.envelope import Signer, read_envelope
from schemas.signing import FIRST_DOMAIN
from schemas.windows import encode_state, encode_window
from tests import factories
from tests.certificate_flaws import TWO_FLAWS, begun, flawed, nested
from tests.factories import DOMAIN, TASK, Site, certificate, device_signer, key, signer
from tests.vectors.writing import document, plain, typed

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
LATER_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "Barrier": FIELDS["Barrier"]
    | {
        "usual_norm": 0.265625,
        "usual_cosine": 21,
        "usual_share": 3,
        "guide_sha256": factories.sha("guide 2"),
    },
    "Guide": {
        "task": TASK,
        "version": 2,
        "model_sha256": factories.model_sha(2),
        "examples": 60,
        "direction": encode_direction(direction_of(factories.delta(5).astype(np.float64), factories.LAYOUT)),
    },
    "GuideAnnouncement": {
        "task": TASK,
        "version": 2,
        "model_sha256": factories.model_sha(2),
        "guide_sha256": factories.sha("guide 2"),
        "guide_bytes": 1234,
    },
    "EdgeAggregate": {
        "task": TASK,
        "region": "eu",
        "edge": "eu.e1",
        "model_sha256": factories.model_sha(2),
        "aggregate": b"the payload of a RegionalAggregate",
        "width": 2,
        "sums": b"\x01\x00\xff\xff",
    },
    "Pardon": {
        "task": TASK,
        "region": "eu",
        "device_id": "d-0007",
        "until": 40,
        "reason": "its data is mended",
    },
}
"""Of what came with ``fluvial/policy/v3`` and later."""
_SIGNERS: Final = {
    "EdgeAggregate": ("eu.e1", Role.EDGE, "box-1"),
    "Guide": ("control", Role.GUARDIAN, "g-1"),
    "GuideAnnouncement": ("control", Role.GUARDIAN, "g-1"),
    "Barrier": ("control", Role.MERGER, "m-1"),
    "Tick": ("eu", Role.WORKER, "w-1"),
    "Revoke": ("control", Role.OPERATOR, "op-1"),
    "Skip": ("control", Role.OPERATOR, "op-1"),
    "Pardon": ("control", Role.OPERATOR, "op-1"),
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


def _derived(policy: Policy | None = None) -> dict[str, dict[str, Any]]:
    """An aggregate and a state of a window that was really folded."""
    site = Site(factories.state_of(policy)) if policy else Site()
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


def records() -> dict[str, Any]:
    """Fields and single-object bytes of every record, in every version of its schema."""
    fields = FIELDS | _derived()
    updates = [factories.update_record("d-0001"), factories.update_record("d-0001", codec="int4")]
    envelope = {"kind": "Tick", "payload": b"\x01\x02", "certificate": b"\x03", "signature": bytes(64)}
    later = {name: value for name, value in fields["Verdict"].items() if name != "detail"}
    later |= {"reason": 323, "values": [0.25, -7, "ü"], "forged": ""}
    rows = [("SignedEnvelope", envelope), *(("ClientUpdate", one) for one in updates), *fields.items()]
    cases = []
    of_v3 = _derived(factories.policy(format="fluvial/policy/v3"))
    of_v4 = _derived(factories.policy(format="fluvial/policy/v4"))
    newest = [(name, of_v3[name]) for name in ("RegionalAggregate", "PartitionState")]
    newest.append(("RegionalAggregate", of_v4["RegionalAggregate"]))
    of_v6 = _derived(factories.policy(format="fluvial/policy/v6"))
    newest += [(name, of_v6[name]) for name in ("RegionalAggregate", "PartitionState")]
    for name, record in [*rows, ("Verdict", later), *LATER_FIELDS.items(), *newest]:
        data = avro.encode_as(name, 2, record) if record is later else avro.encode(name, record)
        cases.append(
            {
                "schema": name,
                "version": avro.schema_of(data).version,
                "fields": plain(record | {"values": typed(record["values"])} if record is later else record),
                "bytes": data.hex(),
            }
        )
    return document("records by their fields (bytes as hex), and their single-object encoding", cases)


def _row(kind: str, fields: dict[str, Any]) -> tuple[str, Signer, str, dict[str, Any]]:
    """A kind, who signs it, the name of the key, and the fields."""
    region, role, name = _SIGNERS[kind]
    by_root = {"issuer": "eu"} if role is Role.EDGE else {}
    return kind, signer(region, role, name, **by_root), f"{region}/{role.value}/{name}", fields


def envelopes() -> dict[str, Any]:
    """Every signed kind, with the key, what is signed, and the whole envelope."""
    rows = [_row(kind, fields) for kind, fields in FIELDS.items()]
    for codec in ("int8", "int4"):
        record = factories.update_record("d-0001", codec=codec)
        rows.append(("ClientUpdate", device_signer("d-0001"), "eu/device/d-0001", record))
    rows += [_row(kind, fields) for kind, fields in LATER_FIELDS.items()]
    cases = []
    for (kind, key_pair, name, fields), domain in product(rows, (FIRST_DOMAIN, DOMAIN)):
        envelope = key_pair.of_task(domain).sign(kind, fields)
        closed = read_envelope(envelope, CANONICAL_RULES)
        cases.append(
            {
                "kind": kind,
                "genesis_sha256": domain.genesis.hex(),
                "private_key": key(name).private_bytes_raw().hex(),
                "certificate": closed.certificate.hex(),
                "payload": closed.payload.hex(),
                "signed": domain.signed_bytes(kind, closed.schema.sha256, closed.payload).hex(),
                "signature": closed.signature.hex(),
                "envelope": envelope.hex(),
            }
        )
    return document(
        "signed envelopes: for which task (none before genesis v5), the Ed25519 seed, what is signed, the signature",
        cases,
    )


def authorities() -> dict[str, str]:
    """The CAs of the vectors' task, PEM."""
    return {
        region: factories.authority(region).public_bytes(Encoding.PEM).decode()
        for region in ("eu", "us", "control")
    }


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def noncanonical(der: bytes) -> dict[str, bytes]:
    """The same certificate in other bytes than canonical DER has, and in a form that no profile of ours has.

    What is signed is another, so no CA has signed these; a reader that gets so far says so.
    """
    critical = bytes.fromhex("0101ff")
    return {
        "a length in more bytes than it needs": b"\x30\x83\x00" + der[2:4] + der[4:]
        if der[1] == 0x82
        else der,
        "a serial with a zero in front": _with_more_zeros(der),
        "true as 1": der.replace(critical, bytes.fromhex("010101")),
        "false, which is left out": der.replace(critical, bytes.fromhex("010100")),
        "a time without seconds": der.replace(b"260101000000Z", b"2601010000Z00"),
        "the other form of a time": der.replace(
            b"\x17\x0d" + b"260101000000Z", b"\x18\x0d" + b"260101000000Z"
        ),
    }


def _with_more_zeros(der: bytes) -> bytes:
    """A serial number whose first byte is a zero that it does not need, in as many bytes as before."""
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    return der[:at] + bytes([0, der[at + 1] & 0x7F]) + der[at + 2 :]


def _identity(trust: Trust, der: bytes) -> tuple[dict[str, Any] | None, int]:
    """Who holds a certificate, or None and the reason's code."""
    try:
        one = trust.identify(der)
    except BadCertificateError as error:
        return None, error.because.reason.code
    return {
        "region": one.region,
        "role": one.role.value,
        "name": one.name,
        "serial": one.serial,
        "not_before_ms": one.not_before_ms,
        "not_after_ms": one.not_after_ms,
        "public_key": one.public_key.public_bytes_raw().hex(),
        "cohort": one.cohort,
    }, 0


def certificates(more: Mapping[str, bytes]) -> dict[str, Any]:
    """Certificates that a task's CAs vouch for, and ones that they do not; and ``more``, to those who know cohorts."""
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
        **{f"of 4096 and {more} bytes": device + bytes(4096 + more - len(device)) for more in (0, 1)},
        **noncanonical(device),
        **{f"a value inside {around} others": nested(device, around) for around in (16, 17)},
        "GeneralizedTime of 1949": begun(device, 0x18, b"19491231235959Z"),
        "GeneralizedTime of 1950": begun(device, 0x18, b"19500101000000Z"),
        "UTCTime of 1950": begun(device, 0x17, b"500101000000Z"),
        **{" and ".join(names): flawed(device, *names) for names in TWO_FLAWS},
        "a guardian": certificate("control", Role.GUARDIAN, "g-1"),
        "a guardian of a region": certificate("eu", Role.GUARDIAN, "g-1"),
        **more,
    }
    cases = []
    for name, der in rows.items():
        first, _ = _identity(factories.trust(rules=FIRST_RULES), der)
        canonical, reason = _identity(factories.trust(rules=CANONICAL_RULES), der)
        assert canonical == (None if reason else first), name
        cases.append({"name": name, "der": der.hex(), "identity": first, "reason": reason})
    return document(
        "certificates (DER): who holds them, or null; by the rules of canonical records the reason, or 0",
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
