"""Vectors of whole logs: windows, barriers, staleness, scores, buffers, parked records; and the order of all checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from aggregation import codecs
from aggregation.fold.events import Parked
from aggregation.fold.rules import TASK_RULES
from aggregation.policy import Policy, policy_from_mapping
from schemas.certificates import Role
from schemas.checkpoints import encode_direction
from schemas.envelope import Signer
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from tests.factories import (
    BUFFERED,
    DOMAIN,
    LAYOUT,
    barrier_bytes,
    certificate,
    delta,
    device_signer,
    devices,
    encoded,
    merger_signer,
    operator_signer,
    revoke_bytes,
    sha,
    tick_bytes,
    update_bytes,
    worker_signer,
)
from tests.vectors.replaying import Log


def rules(default_format: str = "fluvial/policy/v2", **sections: Any) -> Policy:
    """Few updates a window, and no scores unless asked for."""
    small: dict[str, Any] = {
        "window": {"updates_max": 3, "records_max": 6},
        "staleness": {"versions_max": 2},
        "anomaly": {"enabled": False},
    }
    return policy_from_mapping(small | sections, default_format=default_format)


def skip_bytes(offset: int, *, partition: int = 0, by: Signer | None = None, **changed: Any) -> bytes:
    """A signed Skip."""
    fields = {
        "task": "digits",
        "region": "eu",
        "partition": partition,
        "offset": offset,
        "reason": "it raises",
    }
    return (by or operator_signer()).sign("Skip", fields | changed)


def windows() -> Log:
    """What closes a window, and which record belongs to it."""
    log, names = Log(rules()), devices(12)
    log.add(update_bytes(names[0]), "opens the first window")
    log.add(update_bytes(names[1], codec="float32"), "another codec")
    log.add(update_bytes(names[0]), "a duplicate")
    log.add(update_bytes(names[2]), "the third accepted one: the window ends with it")
    log.add(tick_bytes(0), "a tick for a window that is closed")
    log.add(tick_bytes(4), "a tick for the open window, which holds nothing but control records")
    log.add(update_bytes(names[3]), "counts")
    log.add(tick_bytes(4), "closes the window, and belongs to it")
    log.add(b"not a record", "refused")
    log.add(None, "no value")
    for offset in (8, 8, 8):
        log.add(skip_bytes(offset), "a Skip of what was folded changes nothing")
    log.add(skip_bytes(8), "the sixth offset of its window closes it")
    log.add(tick_bytes(14), "control records alone")
    for _ in range(4):
        log.add(tick_bytes(3), "control records alone")
    log.add(tick_bytes(3), "close a window after records_max of them: it counts nothing")
    log.add(update_bytes(names[4]), "in no window yet")
    return log


def barriers() -> Log:
    """Versions, their bases and weights, a policy, a floor; barriers over windows of every kind."""
    one = rules()
    two = rules(window={"updates_max": 2, "records_max": 4}, staleness={"versions_max": 1, "kind": "hinge"})
    log, names = Log(one), devices(12)
    for each in (one, two):
        log.keep(each.canonical())
    reference = log.keep(encode_direction(codecs.direction_of(delta(77).astype(np.float64), LAYOUT)))
    log.add(barrier_bytes(0, one), "of version 0: changes nothing")
    log.add(barrier_bytes(1, one), "over control records alone: closes nothing, so the window goes on")
    log.add(update_bytes(names[0], base=0), "one version late")
    log.add(update_bytes(names[1], base=1, seed=1), "of the newest version")
    log.add(barrier_bytes(2, one, reference_sha256=reference), "closes the window, and belongs to it")
    log.add(update_bytes(names[2], base=2, seed=2), "compared with the direction")
    log.add(update_bytes(names[3], base=3), "a base that has not come")
    log.add(update_bytes(names[3], base=0), "two versions late, the policy's limit")
    log.add(
        barrier_bytes(3, one, reference_sha256=reference, floor=9), "a floor above its version is its version"
    )
    log.add(update_bytes(names[4], base=2), "below the floor")
    log.add(update_bytes(names[4], base=3, base_sha256="0" * 64), "another model of version 3")
    log.add(barrier_bytes(2, one), "old: changes nothing")
    log.add(barrier_bytes(5, two, reference_sha256=reference), "jumps over version 4, and brings a policy")
    log.add(update_bytes(names[5], base=4), "of a version that this partition never saw")
    log.add(update_bytes(names[5], base=5), "under the new policy")
    log.add(update_bytes(names[6], base=5), "its window's second: closes it")
    log.add(barrier_bytes(6, two), "over an empty window: the next one begins here")
    log.add(barrier_bytes(7, two), "over control records")
    log.add(barrier_bytes(8, two), "over control records")
    log.add(
        barrier_bytes(9, two), "the fourth offset: closes a window of nothing, under the version before it"
    )
    log.add(b"junk", "refused")
    log.add(barrier_bytes(10, two), "closes a window without sums")
    log.add(barrier_bytes(11, two, region="us"), "of another region")
    log.add(barrier_bytes(11, two, task="other"), "of another task")
    log.add(barrier_bytes(11, two, by=device_signer(names[0])), "forged")
    return log


def scores() -> Log:
    """The history of norms, and what is anomalous."""
    one = rules(
        anomaly={"history_updates_min": 4, "history_updates": 5},
        window={"updates_max": 100, "records_max": 100},
    )
    log, names = Log(one), devices(12)
    log.keep(one.canonical())
    direction = delta(5)
    reference = log.keep(encode_direction(codecs.direction_of(direction.astype(np.float64), LAYOUT)))
    log.add(barrier_bytes(1, one, reference_sha256=reference))
    for n, name in enumerate(names[:5]):
        log.add(
            update_bytes(
                name, base=1, tensors=encoded(direction * np.float32(1 + n / 10), "float32"), codec="float32"
            )
        )
    log.add(
        update_bytes(
            names[5], base=1, tensors=encoded(direction * np.float32(9), "float32"), codec="float32"
        ),
        "its norm is far above its peers'; it enters the history",
    )
    log.add(
        update_bytes(names[6], base=1, tensors=encoded(-direction, "int8", 3)),
        "against the last step; it enters the history",
    )
    log.add(update_bytes(names[5], base=1), "an anomalous update used up its device's contribution")
    log.add(
        update_bytes(names[7], base=1, tensors=encoded(direction, "int4", 3), codec="int4"),
        "codec not in the policy",
    )
    log.add(
        update_bytes(
            names[7], base=1, tensors=encoded(direction * np.float32(1e6), "float32"), codec="float32"
        ),
        "over norm_max: no score, no history",
    )
    log.add(update_bytes(names[7], base=1, tensors=encoded(direction, "int8", 3)), "counts")
    log.add(tick_bytes(0))
    return log


def running_statistics() -> Log:
    """Buffers: values beside the deltas."""
    log, names = Log(rules(), BUFFERED), devices(9)
    good = encoded(delta(1, BUFFERED), "int8", 1, BUFFERED)

    def spoiled(at: int, **changed: Any) -> list[codecs.EncodedTensor]:
        return [*good[:at], replace(good[at], **changed), *good[at + 1 :]]

    below = np.array([1.0, -1.0, 2.0], dtype="<f4").tobytes()
    log.add(update_bytes(names[0], tensors=good, layout=BUFFERED), "counts")
    log.add(update_bytes(names[1], tensors=spoiled(3, data=below), layout=BUFFERED), "a mean may be below 0")
    log.add(update_bytes(names[2], tensors=spoiled(4, data=below), layout=BUFFERED), "a variance may not")
    log.add(update_bytes(names[3], tensors=spoiled(4, data=b"\0\0\x80\x7f" * 3), layout=BUFFERED), "infinite")
    log.add(update_bytes(names[4], tensors=spoiled(4, scale=2.0), layout=BUFFERED), "a scale other than 1")
    log.add(update_bytes(names[5], tensors=spoiled(4, data=below[:8]), layout=BUFFERED), "too short")
    return log


def older_and_newer() -> Log:
    """Which update a policy's format takes."""
    one = rules("fluvial/policy/v1")
    two = rules(updates={"codecs": ["int4", "int8"]})
    log, names = Log(one), devices(6)
    log.keep(two.canonical())
    log.add(update_bytes(names[0], codec="int4"), "ClientUpdate v2 under a policy of v1")
    log.add(update_bytes(names[0]), "ClientUpdate v1")
    log.add(barrier_bytes(1, two), "brings a policy of v2")
    log.add(update_bytes(names[1], codec="int4", base=1), "ClientUpdate v2 under a policy of v2")
    log.add(update_bytes(names[2], base=1), "ClientUpdate v1 goes on")
    log.add(
        update_bytes(names[3], base=1, codec="a-later-one", tensors=encoded(delta(0))),
        "a codec that nobody knows",
    )
    log.add(tick_bytes(3))
    return log


def parked() -> Log:
    """A record that an operator's Skip has parked, and one that it has not."""
    log, names = Log(rules()), devices(6)
    log.add(update_bytes(names[0]), "parked by the Skip at offset 2, though it is sound")
    log.add(update_bytes(names[1]), "counts")
    log.add(skip_bytes(0), "parks offset 0 where that stands; here it changes nothing")
    log.add(update_bytes(names[0]), "the parked one has used up nothing: this counts")
    log.add(tick_bytes(0))
    log.parked[0] = Parked(2, "it raises")
    return log


def revoked() -> Log:
    """Revokes, and control records that are meant for elsewhere."""
    log, names = Log(rules(), partitions=2), devices(6, partitions=2)
    serial = f"{device_serial(names[1]):x}"
    log.add(revoke_bytes(names[0]), "a device")
    log.add(revoke_bytes("", serial), "a certificate")
    log.add(revoke_bytes(names[2], task="other"), "of another task")
    log.add(update_bytes(names[0]))
    log.add(update_bytes(names[1]))
    log.add(update_bytes(names[2]))
    log.add(tick_bytes(0, partition=1), "of another partition")
    log.add(tick_bytes(0, region="us", by=worker_signer("w-1", "us")), "a worker of another region")
    log.add(tick_bytes(0, region="us"), "signed by a worker of a region that it does not name")
    log.add(skip_bytes(0, partition=1), "of another partition")
    log.add(tick_bytes(6), "closes the second window")
    return log


def of_the_task() -> Log:
    """Since v5 a signature names the task: what was signed for another one, or for none, is nobody's."""
    log, names = Log(rules(), domain=DOMAIN), devices(9)
    earlier = SignatureDomain.of(TASK_RULES, sha("genesis of an earlier task of the same name"))
    log.keep(log.policy.canonical())
    for domain, note in (
        (earlier, "of an earlier task of the same name"),
        (FIRST_DOMAIN, "as before v5"),
        (DOMAIN, "of this task"),
    ):
        merger, operator = merger_signer().of_task(domain), operator_signer().of_task(domain)
        log.add(update_bytes(names[0], by=device_signer(names[0]).of_task(domain)), f"an update {note}")
        log.add(revoke_bytes(names[1], by=operator), f"a Revoke {note}")
        log.add(skip_bytes(0, by=operator), f"a Skip {note}")
        log.add(tick_bytes(len(log.records), by=worker_signer().of_task(domain)), f"a tick {note}")
        log.add(barrier_bytes(1, log.policy, by=merger), f"a barrier {note}")
    log.add(update_bytes(names[2], base=1, by=device_signer(names[2]).of_task(DOMAIN)), "counts")
    log.add(tick_bytes(15, by=worker_signer().of_task(DOMAIN)), "closes the window")
    return log


def revoked_by_role() -> Log:
    """Since v5 a Revoke bars whoever signs: control records of every role, from the offset where it stands."""
    log, names = Log(rules(), domain=DOMAIN), devices(9)
    log.keep(log.policy.canonical())
    operator, other = (operator_signer(name).of_task(DOMAIN) for name in ("op-1", "op-2"))
    merger, worker, device = (
        one.of_task(DOMAIN) for one in (merger_signer(), worker_signer(), device_signer(names[1]))
    )

    def revoke(by: Signer, of: Signer, note: str) -> None:
        log.add(revoke_bytes("", f"{serial_of(of.certificate):x}", by=by), note)

    log.add(update_bytes(names[0], by=device_signer(names[0]).of_task(DOMAIN)), "opens the window")
    log.add(barrier_bytes(1, log.policy, by=merger), "counts: nobody is revoked")
    log.add(revoke_bytes(f"{serial_of(merger.certificate):x}", by=operator), "a device of such a name")
    log.add(barrier_bytes(2, log.policy, by=merger), "counts: a device's name is no certificate")
    revoke(operator, merger, "the merger's certificate")
    log.add(barrier_bytes(3, log.policy, by=merger), "by a revoked merger")
    log.add(barrier_bytes(3, log.policy, by=merger_signer("m-2").of_task(DOMAIN)), "by another merger")
    revoke(operator, worker, "the worker's certificate")
    log.add(update_bytes(names[2], base=3, by=device_signer(names[2]).of_task(DOMAIN)), "in the open window")
    log.add(tick_bytes(7, by=worker), "by a revoked worker")
    log.add(tick_bytes(10, by=worker), "by a revoked worker, of no window")
    log.add(tick_bytes(7, by=worker_signer("w-2").of_task(DOMAIN)), "by another worker")
    revoke(operator, device, "a device's certificate")
    log.add(update_bytes(names[1], base=3, by=device), "by a revoked certificate")
    revoke(operator, operator, "the operator's own: it counts, and is the last")
    log.add(skip_bytes(0, by=operator), "by a revoked operator")
    log.add(revoke_bytes(names[2], by=operator), "by a revoked operator: bars nobody")
    log.add(revoke_bytes(names[0], by=other), "by another operator")
    for name in (names[0], names[3]):
        log.add(update_bytes(name, base=3, by=device_signer(name).of_task(DOMAIN)))
    log.add(tick_bytes(18, by=worker_signer("w-2").of_task(DOMAIN)))
    return log


def device_serial(name: str) -> int:
    """The serial number of a device's certificate."""
    return serial_of(certificate("eu", Role.DEVICE, name))


def serial_of(der: bytes) -> int:
    """The serial number of a certificate."""
    from cryptography import x509

    return x509.load_der_x509_certificate(der).serial_number


LOGS = {
    "windows": windows,
    "barriers": barriers,
    "scores": scores,
    "running statistics": running_statistics,
    "older and newer updates": older_and_newer,
    "parked records": parked,
    "revoked, and meant for elsewhere": revoked,
    "signed for this task, for another, for none": of_the_task,
    "revoked, of every role": revoked_by_role,
}
