"""Every kind of bad input that a device of ours or a stranger can send to the real pipeline, and what it has to get."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aggregation.fold.rejections import ACCEPTED
from backends import keys
from schemas.avro import HEADER_BYTES, MARKER
from schemas.certificates import Role
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from schemas.envelope import Signer
    from tests.integration.pipeline import Federation

PARTITIONS = {"eu": 2, "us": 1}
HISTORY = 6
BYTES_MAX = 4096
SHORT_LIFE_DAYS = 2 / 86_400
NORM_CLIPPED, NORM_OUTLIER, NORM_EXCEEDED = 2.0, 50.0, 200.0

# Windows close only when the test writes a tick, and one version holds what the first two windows hold: so every
# record below is judged at version 1, and how many windows there are says who closed them.
POLICY = factories.policy(
    updates={"bytes_max": BYTES_MAX, "norm_clip": 1.0, "norm_max": 100.0},
    staleness={"versions_max": 0},
    window={"updates_max": 1000, "seconds_max": 3600.0},
    buffer={"updates": 2 * HISTORY, "seconds_max": 3600.0},
    anomaly={"norm_deviations_max": 50.0, "cosine_min": -0.9, "history_updates_min": HISTORY},
)


class Bench:
    """What the rows are made with: honest devices of eu[0] at version 1, and keys of every wrong kind."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.federation = federation
        self.ids = iter(factories.devices(400, partition=0, partitions=2, start=1000))
        self.expired_id, self.revoked_id, self.revoked_serial_id = (self.fresh() for _ in range(3))
        expired = keys.issue(federation.keys, "eu", Role.DEVICE, self.expired_id, days=SHORT_LIFE_DAYS)
        self.expired = federation.signer(expired)
        self.expired_at_s = time.time() + SHORT_LIFE_DAYS * 86_400 + 1
        self.strange_keys = folder / "strange"
        keys.create_authority(self.strange_keys, "eu")
        federation.device(self.revoked_serial_id)
        path = keys.signer_path(federation.keys, "eu", Role.DEVICE, self.revoked_serial_id)
        self.revoked_serial = keys.certificate_serial(path)

    def fresh(self) -> str:
        """A device id of eu[0] that nobody has used."""
        return next(self.ids)

    def strange(self, device_id: str) -> Signer:
        """A signer of another CA that calls itself eu."""
        return self.federation.signer(keys.issue(self.strange_keys, "eu", Role.DEVICE, device_id))

    def honest(self, device_id: str = "", **changed: Any) -> bytes:
        """An update at version 1, good but for ``changed``."""
        return self.federation.update(device_id or self.fresh(), base=changed.pop("base", 1), **changed)

    def delta(self, values: np.ndarray, codec: str = "float32") -> bytes:
        """A rightly signed update of any delta."""
        tensors = factories.encoded(values.astype(np.float32), codec, 1, self.federation.layout)
        return self.honest(codec=codec, tensors=tensors)

    def of_norm(self, norm: float) -> bytes:
        """A float32 update of this norm, at a right angle to nothing in particular."""
        values = factories.delta(77, self.federation.layout)
        return self.delta(values * (norm / float(np.linalg.norm(values))))

    def tensors(self, index: int = 0, **changed: object) -> bytes:
        """An update with one tensor's field changed, as a dishonest encoder would."""
        device_id = self.fresh()
        record = self.federation.record(device_id, base=1)
        record["tensors"][index] |= changed
        return self.federation.device(device_id).sign("ClientUpdate", record)

    def forged(self, kind: str, **fields: object) -> bytes:
        """A control record signed by a device."""
        common = {"task": self.federation.task, "region": "eu"}
        return self.federation.device(self.fresh()).sign(kind, common | fields)

    def barrier(self, **changed: object) -> dict[str, object]:
        """A barrier that would move the partition far ahead."""
        return {
            "task": self.federation.task,
            "region": "eu",
            "version": 1_000_000,
            "manifest_sha256": "0" * 64,
            "model_sha256": "0" * 64,
            "reference_sha256": "",
            "policy_sha256": POLICY.sha256,
            "floor": 1_000_000,
            "reason": "rollback",
        } | changed


@dataclass(frozen=True)
class Row:
    """One kind of bad input: how it is made, what it gets, and what its detail has to say."""

    make: Callable[[Bench], bytes | None]
    outcome: str
    says: str = ""


def flipped(value: bytes, at: int = -1) -> bytes:
    spoiled = bytearray(value)
    spoiled[at] ^= 1
    return bytes(spoiled)


def inner_unknown(bench: Bench) -> bytes:
    """A signed envelope around a payload of a schema that nobody has."""
    signer = bench.federation.device(bench.fresh())
    return signer.sign_payload("ClientUpdate", MARKER + b"\7" * 8 + b"payload")


def against_the_last_step(bench: Bench) -> bytes:
    """The last global step, turned round, at a modest norm."""
    from schemas.checkpoints import decode_model

    store, layout = bench.federation.store, bench.federation.layout
    models = [decode_model(store.model_bytes(v, bench.federation.model_sha256(v)), layout) for v in (0, 1)]
    step = models[1] - models[0]
    return bench.delta(-step * (0.5 / float(np.linalg.norm(step))))


def not_a_number(bench: Bench, value: float) -> bytes:
    delta = factories.delta(5, bench.federation.layout).copy()
    delta[3] = value
    return bench.delta(delta)


def announcement(bench: Bench) -> bytes:
    """A validly signed record of a kind that has no business in an updates topic."""
    record = {
        "version": 9,
        "manifest_sha256": "0" * 64,
        "model_sha256": "0" * 64,
        "policy_sha256": POLICY.sha256,
    }
    common = {"task": bench.federation.task, "region": "eu"}
    return bench.federation.merger_signer.sign("ModelAnnouncement", common | record)


def other_partitions_device(bench: Bench) -> bytes:
    return bench.honest(factories.devices(1, partition=1, partitions=2, start=5000)[0])


ROWS: dict[str, Row] = {
    "no value": Row(lambda b: None, "undecodable"),
    "no bytes": Row(lambda b: b"", "undecodable"),
    "text": Row(lambda b: b'{"hello": "world"}', "undecodable"),
    "noise": Row(lambda b: bytes(range(256)) * 3, "undecodable"),
    "half of an envelope": Row(lambda b: b.honest()[:300], "undecodable"),
    "an announcement": Row(announcement, "undecodable", "does not belong"),
    "unknown fingerprint": Row(lambda b: MARKER + b"\0" * 8 + b.honest()[HEADER_BYTES:], "unknown_schema"),
    "unknown fingerprint inside": Row(inner_unknown, "unknown_schema"),
    "too many bytes": Row(lambda b: b.tensors(data=b"\1" * (2 * BYTES_MAX)), "too_large", str(BYTES_MAX)),
    "another tensor's name": Row(lambda b: b.tensors(name="stranger"), "wrong_layout"),
    "another shape": Row(lambda b: b.tensors(1, shape=[5, 3]), "wrong_layout"),
    "too little data": Row(lambda b: b.tensors(1, data=b"\1"), "wrong_layout", "1 bytes"),
    "a tensor too few": Row(
        lambda b: b.honest(tensors=factories.encoded(factories.delta(1))[:-1]), "wrong_layout", "2 tensors"
    ),
    "a scale that is NaN": Row(lambda b: b.tensors(scale=math.nan), "not_finite"),
    "a scale that is infinite": Row(lambda b: b.tensors(scale=math.inf), "not_finite"),
    "a scale that is negative": Row(lambda b: b.tensors(scale=-0.5), "not_finite"),
    "float32 with NaN": Row(lambda b: not_a_number(b, math.nan), "not_finite"),
    "float32 with infinity": Row(lambda b: not_a_number(b, -math.inf), "not_finite"),
    "certificate of another CA": Row(lambda b: b.honest(d := b.fresh(), by=b.strange(d)), "bad_certificate"),
    "a worker's certificate": Row(
        lambda b: b.honest(by=b.federation.worker_signer("eu")), "bad_certificate", "may not sign"
    ),
    "expired certificate": Row(lambda b: b.honest(b.expired_id, by=b.expired), "certificate_expired"),
    "revoked device": Row(lambda b: b.honest(b.revoked_id), "revoked"),
    "revoked certificate": Row(lambda b: b.honest(b.revoked_serial_id), "revoked"),
    "wrong signature": Row(lambda b: flipped(b.honest()), "bad_signature"),
    "payload changed after signing": Row(lambda b: b.honest().replace(b"u-d-", b"x-d-", 1), "bad_signature"),
    "another device's id": Row(
        lambda b: b.honest(b.fresh(), by=b.federation.device(b.fresh())), "bad_signature", "signed by"
    ),
    "another task": Row(lambda b: b.honest(task="another"), "wrong_task", "another"),
    "bytes of us": Row(lambda b: b.honest("d-us", region="us"), "wrong_region", "us"),
    "a claim to be of us": Row(
        lambda b: b.honest(d := b.fresh(), region="us", by=b.federation.device(d, "eu")), "wrong_region", "us"
    ),
    "a device of the other partition": Row(other_partitions_device, "wrong_partition", "partition 1"),
    "a base beyond the bound": Row(lambda b: b.honest(base=0), "too_stale", "1 versions old"),
    "a base below nought": Row(lambda b: b.honest(base=-1), "too_stale"),
    "a base from the future": Row(lambda b: b.honest(base=2, base_sha256="0" * 64), "future_base"),
    "another model of that version": Row(lambda b: b.honest(base_sha256="1" * 64), "unknown_base"),
    "norm beyond the hard bound": Row(
        lambda b: b.of_norm(NORM_EXCEEDED), "norm_exceeded", f"{NORM_EXCEEDED:.6g}"
    ),
    "norm far above its peers'": Row(lambda b: b.of_norm(NORM_OUTLIER), "anomalous", "robust deviations"),
    "against the last global step": Row(against_the_last_step, "anomalous", "cosine"),
    "norm above the clipping bound": Row(
        lambda b: b.of_norm(NORM_CLIPPED), ACCEPTED, "clipped from norm 2 to 1"
    ),
    "barrier by a device": Row(
        lambda b: b.federation.device(b.fresh()).sign("Barrier", b.barrier()),
        "bad_signature",
        "forged Barrier",
    ),
    "barrier by a worker": Row(
        lambda b: b.federation.worker_signer("eu").sign("Barrier", b.barrier()),
        "bad_signature",
        "forged Barrier",
    ),
    "barrier with a changed byte": Row(
        lambda b: flipped(b.federation.merger_signer.sign("Barrier", b.barrier())),
        "bad_signature",
        "forged Barrier",
    ),
    "barrier of another task": Row(
        lambda b: b.federation.merger_signer.sign("Barrier", b.barrier(task="another")), "wrong_task"
    ),
    "tick by a device": Row(
        lambda b: b.forged("Tick", partition=0, window_first_offset=0), "bad_signature", "forged Tick"
    ),
    "revocation by a device": Row(
        lambda b: b.federation.device(b.fresh()).sign(
            "Revoke",
            {"task": b.federation.task, "device_id": "d-0000", "certificate_serial": "", "reason": "envy"},
        ),
        "bad_signature",
        "forged Revoke",
    ),
}
