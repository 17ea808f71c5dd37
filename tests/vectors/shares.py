"""Vectors of logs under ``fluvial/policy/v3``: shares, time, quarantine, what is usual, guides, and what older ones
do not know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation import codecs
from aggregation.layout import Layout
from aggregation.policy import Policy, policy_from_mapping
from schemas import avro
from schemas.certificates import Role
from schemas.checkpoints import encode_direction
from schemas.envelope import Signer
from schemas.guides import signed_guide
from tests.factories import (
    BUFFERED,
    DOMAIN,
    LAYOUT,
    NOW_MS,
    TASK,
    barrier_bytes,
    delta,
    device_signer,
    devices,
    encoded,
    merger_signer,
    model_sha,
    operator_signer,
    revoke_bytes,
    sha,
    signer,
    tick_bytes,
    update_bytes,
    worker_signer,
)
from tests.vectors import logs
from tests.vectors.logs import serial_of
from tests.vectors.replaying import Log, case_of
from tests.vectors.wire import authorities
from tests.vectors.writing import document

V3: Final = "fluvial/policy/v3"
WHOLE: Final = (1 << 63) - 1
"""The largest number of a record."""
OTHER: Final = Layout.of([("t", (3,))])
"""A layout that is no task's."""
SINCE_V3: Final = ("Barrier", "Guide", "PartitionState", "RegionalAggregate")
"""Records of which a version came with ``fluvial/policy/v3``."""


def rules(kind: str = "median", **sections: Any) -> Policy:
    """A policy of v3 in which everything happens soon; ``sections`` add to its sections, key by key."""
    small: dict[str, Any] = {
        "format": V3,
        "window": {"updates_max": 100, "records_max": 100},
        "staleness": {"versions_max": 2, "seconds_max": 30.0},
        "defence": {"kind": kind, "quarantine_refusals": 2, "quarantine_versions": 2},
    }
    for name, keys in sections.items():
        small[name] = small.get(name, {}) | keys
    return policy_from_mapping(small)


def guardian_signer() -> Signer:
    """A guardian."""
    return signer("control", Role.GUARDIAN, "g-1")


def barrier(version: int, rules: Policy, **changed: Any) -> bytes:
    """A signed Barrier v2."""
    said = {"usual_norm": 0.0, "usual_cosine": 0, "usual_share": 0, "guide_sha256": ""}
    return barrier_bytes(version, rules, **(said | changed))


def update(device: str, base: int, values: npt.NDArray[np.float32], codec: str = "int8", **changed: Any) -> bytes:
    """A signed update with these deltas."""
    return update_bytes(device, base=base, tensors=encoded(values, codec, 3), codec=codec, **changed)


def guide_bytes(
    version: int, values: npt.NDArray[np.float32], *, by: Signer | None = None, **changed: Any
) -> bytes:
    """A guide's object; ``values`` are of the weights of one of the factories' layouts."""
    layout = BUFFERED.trainable if values.size == BUFFERED.trainable.parameters else LAYOUT
    direction = codecs.direction_of(values.astype(np.float64), layout)
    fields = {"task": TASK, "version": version, "model_sha256": model_sha(version), "examples": 60}
    return signed_guide(by or guardian_signer(), direction=direction, **(fields | changed))


def guide(log: Log, version: int, values: npt.NDArray[np.float32], **changed: Any) -> str:
    """A guide in the store of a log: its hash."""
    return log.keep(guide_bytes(version, values, **changed))


def shares() -> Log:
    """Token buckets, quarantine and bases that grow old in time, under the default defence."""
    one = rules(updates={"norm_clip": 0.5, "codecs": ["int8", "float32", "int4"]})
    log, names = Log(one), devices(9)
    log.keep(one.canonical())
    now, direction = NOW_MS, delta(5)
    zeros = np.zeros_like(direction)

    def add(value: bytes, note: str = "") -> None:
        log.add(value, note, now)

    add(update(names[0], 0, direction), "the first of two saved contributions")
    add(update(names[1], 0, zeros), "changes nothing: scored, so it takes a contribution")
    add(barrier(1, one), "closes the window; nothing is usual yet")
    now += 10_000
    add(update(names[0], 1, direction), "has two again, takes one")
    add(update(names[0], 0, direction), "a duplicate takes none")
    add(update(names[1], 1, zeros), "its second anomalous one of two brings it into quarantine")
    add(update(names[2], 0, direction, "float32"), "one version late")
    add(update(names[2], 1, direction, "int4"), "the last contribution that it has at this version")
    add(barrier(2, one, usual_norm=0.3, usual_share=1), "what is usual is known from here on")
    now += 1_000
    add(update(names[1], 2, direction), "in quarantine")
    add(update(names[2], 2, direction), "its third in eight versions where one is usual: a third of its weight")
    add(update(names[2], 2, direction), "a duplicate is said before shares are looked at")
    add(update(names[2], 1, direction), "a duplicate")
    add(update(names[3], 2, zeros), "changes nothing")
    add(update(names[4], 0, direction), "counts")
    add(update(names[4], 1, direction), "counts")
    add(update(names[4], 2, direction), "over its share")
    later = update_bytes(names[4], base=2, codec="a-later-one", tensors=encoded(direction))
    add(later, "over its share before its form is looked at")
    add(barrier(3, one, usual_norm=0.01, usual_share=3), "the usual norm is below the floor")
    now += 20_000
    add(update(names[0], 3, direction), "clipped to the floor")
    add(update(names[1], 3, direction), "its quarantine is over: counts")
    add(update(names[5], 0, direction), "a base beyond versions_max, superseded 31 s ago: too old")
    add(update(names[5], 1, direction), "two versions old: welcome")
    add(barrier(4, one, usual_norm=1e308, usual_share=WHOLE), "base 0 is forgotten")
    now += 29_999
    add(update(names[1], 4, direction), "counts again: what was scored before is forgotten")
    add(update(names[6], 1, direction), "superseded 50.999 s ago")
    add(update(names[6], 2, direction), "two versions old, however long ago")
    add(barrier(9, one, usual_norm=float("nan"), usual_share=-1), "jumps over versions")
    now -= 5_000
    add(update(names[7], 2, direction), "superseded too long ago for its version's barrier: forgotten")
    add(update(names[7], 3, direction), "superseded 24.999 s before this record's time: welcome, the least weight")
    add(update(names[7], 5, direction), "a version that never came")
    add(update(names[7], 4, direction), "older than versions_max, young in time")
    add(barrier(13, one), "nobody's entry is old enough to be forgotten but for those of before version 6")
    add(update(names[8], 9, direction), "counts")
    add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


def guided() -> Log:
    """Guides, good ones and others; agreement and fairness; buffers beside."""
    one = rules("guide", updates={"norm_clip": 2.0, "codecs": ["int8", "float32"]}, buffer={"updates": 5})
    log, names = Log(one, BUFFERED), devices(16)
    log.keep(one.canonical())
    weights = BUFFERED.trainable.parameters
    along = delta(5, BUFFERED)

    def against(factor: float, aside: float = 0.0) -> npt.NDArray[np.float32]:
        values = along.copy()
        values[:weights] = np.float32(factor) * along[:weights] + np.float32(aside) * delta(6, BUFFERED)[:weights]
        return values

    def send(name: str, base: int, values: npt.NDArray[np.float32], note: str, codec: str = "int8") -> None:
        tensors = encoded(values, codec, 3, BUFFERED)
        log.add(update_bytes(name, base=base, tensors=tensors, codec=codec, layout=BUFFERED), note)

    weighed = along[:weights]
    send(names[0], 0, against(-1.0), "no guide yet, so as median has it: counts")
    log.add(barrier(1, one, guide_sha256=guide(log, 0, weighed)), "a guide for the version before")
    send(names[0], 1, against(-1.0), "against the guide")
    send(names[1], 1, against(1.0), "with it: no cosine is usual, so 0 is")
    send(names[2], 1, against(0.3, 1.0), "aside: weighs by its cosine", "float32")
    send(names[3], 1, against(0.0), "changes nothing")
    log.add(
        barrier(2, one, guide_sha256=guide(log, 2, weighed), usual_norm=0.2, usual_cosine=40, usual_share=1),
        "a guide for its own version",
    )
    send(names[1], 2, against(0.5, 1.0), "below the usual cosine, its device above the usual share")
    send(names[4], 2, against(0.5, 1.0), "the same of a device that comes for the first time", "float32")
    send(names[0], 2, against(-0.3, 1.0), "its second one against the guide: quarantine")
    send(names[0], 1, against(1.0), "the base that it answered")
    log.add(barrier(3, one, guide_sha256=guide(log, 0, weighed)), "a guide of three versions before: too old")
    send(names[5], 3, against(-1.0), "nobody is against a guide that there is not")
    log.add(barrier(4, one, guide_sha256=guide(log, 5, weighed)), "a guide for a version to come")
    send(names[5], 4, against(-1.0), "counts")
    log.add(barrier(5, one, guide_sha256=guide(log, 4, weighed, model_sha256=sha("another"))), "of another model")
    log.add(barrier(6, one, guide_sha256=guide(log, 5, weighed, by=operator_signer())), "by an operator")
    send(names[6], 6, against(-1.0), "counts")
    log.add(barrier(7, one, guide_sha256=guide(log, 6, weighed, task="another")), "of another task")
    log.add(barrier(8, one, guide_sha256=log.keep(b"no guide")), "of bytes that are none")
    version = 9
    log.add(barrier(version, one, guide_sha256=guide(log, 8, np.zeros_like(weighed))), "that points nowhere")
    send(names[7], 9, against(-1.0), "counts")
    whole = codecs.direction_of(weighed.astype(np.float64), BUFFERED.trainable)
    negative = replace(whole, scales=(-1.0, *whole.scales[1:]))
    fields = {"task": TASK, "version": 9, "model_sha256": model_sha(9), "examples": 60}
    for note, direction in (
        ("with a scale below 0", encode_direction(negative)),
        ("of another layout", encode_direction(codecs.direction_of(weighed[:3].astype(np.float64), OTHER))),
        ("with bytes behind its direction", encode_direction(whole) + bytes(8)),
        ("whose direction has another header", respaced(encode_direction(whole))),
        ("of no direction", b""),
    ):
        name = log.keep(guardian_signer().sign("Guide", fields | {"direction": direction}))
        version += 1
        log.add(barrier(version, one, guide_sha256=name), f"a guide {note}")
    forged = log.keep(guide_bytes(9, weighed, by=guardian_signer().of_task(DOMAIN)))
    log.add(barrier(version + 1, one, guide_sha256=forged), "a guide that is signed for another task")
    send(names[8], version + 1, against(-1.0), "counts")
    base = version + 1
    good = guide(log, base, weighed)
    log.add(barrier(base + 1, one, guide_sha256=good, usual_cosine=-40, usual_share=2), "no cosine below 0 is usual")
    send(names[9], base + 1, against(0.3, 1.0), "at its whole weight")
    log.add(barrier(base + 2, one, guide_sha256=good, usual_cosine=WHOLE, usual_share=WHOLE), "of the task")
    send(names[9], base + 2, against(1.0), "at the least weight that there is")
    serial = f"{serial_of(guardian_signer().certificate):x}"
    log.add(revoke_bytes("", serial), "bars the guardian: its guide stands until the next barrier")
    send(names[10], base + 2, against(-1.0), "against the guide")
    log.add(barrier(base + 3, one, guide_sha256=good), "a revoked guardian's")
    send(names[10], base + 3, against(-1.0), "counts")
    log.add(barrier(base + 4, one), "no guide")
    return log


def respaced(file: bytes) -> bytes:
    """A safetensors file with eight spaces more in its header, which says the same."""
    size = int.from_bytes(file[:8], "little")
    return (size + 8).to_bytes(8, "little") + file[8 : 8 + size] + b" " * 8 + file[8 + size :]


def unguarded() -> Log:
    """Under v3 with other defences: peers and none; without shares; and a barrier of the first version."""
    direction, names = delta(5), devices(9)
    peers = rules("peers", defence={"history_updates_min": 2, "history_updates": 3, "norm_deviations_max": 2.0})
    none = rules("none", shares={"per_version": 0}, staleness={"seconds_max": 0.0})
    log = Log(peers)
    for one in (peers, none):
        log.keep(one.canonical())
    reference = log.keep(encode_direction(codecs.direction_of(direction.astype(np.float64), LAYOUT)))
    log.add(barrier(1, peers, reference_sha256=reference, usual_norm=0.001, usual_share=1), "clips nothing by it")
    log.add(update(names[0], 1, direction))
    log.add(update(names[1], 1, np.float32(1.1) * direction, "float32"))
    log.add(update(names[2], 1, np.float32(9) * direction, "float32"), "its norm is far above its peers'")
    log.add(update(names[3], 1, -direction), "against the last step")
    log.add(update(names[4], 1, np.zeros_like(direction)), "zeros count")
    log.add(barrier(2, none, reference_sha256=reference), "no shares from here on, and norms are not remembered")
    log.add(update(names[2], 2, np.float32(9) * direction, "float32"), "counts")
    log.add(update(names[2], 0, -direction), "counts: two versions late")
    log.add(update(names[2], 1, -direction), "a duplicate")
    log.add(barrier(3, none), "versions only: base 0 is too old")
    log.add(update(names[5], 0, direction), "too stale")
    log.add(barrier_bytes(4, peers), "a barrier of the first version: nothing is usual")
    log.add(update(names[2], 4, direction), "what it had before is remembered")
    log.add(tick_bytes(13), "closes the window")
    return log


def unknown() -> Log:
    """To a policy before v3 what came with it is of an unknown schema, wherever it is named; and policies change."""
    old = policy_from_mapping({"window": {"updates_max": 100, "records_max": 100}}, default_format="fluvial/policy/v2")
    new = rules()
    log, names, by = Log(old), devices(9), guardian_signer()
    for one in (old, new):
        log.keep(one.canonical())
    later = {name: avro.schemas_for(name)[-1].header for name in SINCE_V3}

    def add_all(when: str) -> None:
        log.add(barrier(1, old), f"a Barrier v2 {when}")
        for name, header in later.items():
            log.add(header, f"no envelope, but a {name} {when}")
            fields = {"kind": "Tick", "payload": header, "certificate": by.certificate, "signature": b""}
            log.add(avro.encode("SignedEnvelope", fields), f"a {name} that is called a Tick {when}")
            log.add(by.sign_payload(name, header), f"a {name} {when}")

    add_all("under v2")
    log.add(update(names[0], 0, delta(1)), "counts")
    log.add(barrier_bytes(1, new), "brings v3, in the first version of Barrier; closes a window of before")
    log.add(update(names[0], 1, delta(1)), "has two contributions")
    add_all("under v3")
    log.add(barrier(2, old, usual_norm=0.5), "brings v2 back; closes a window with histograms")
    log.add(update(names[0], 2, delta(1)), "shares are not counted")
    log.add(barrier_bytes(3, new), "v3 once more")
    log.add(update(names[1], 2, delta(1)), "counts")
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


def of_the_task() -> Log:
    """The same rules where signatures name the task, and a guardian is barred by its certificate's name."""
    one = rules("guide")
    log, names = Log(one, domain=DOMAIN), devices(9)
    log.keep(one.canonical())
    merger, operator, by = (
        each.of_task(DOMAIN) for each in (merger_signer(), operator_signer(), guardian_signer())
    )
    good, earlier = guide(log, 0, delta(5), by=by), guide(log, 0, delta(5))

    def send(n: int, base: int, values: npt.NDArray[np.float32], note: str) -> None:
        log.add(update(names[n], base, values, by=device_signer(names[n]).of_task(DOMAIN)), note)

    log.add(barrier(1, one, guide_sha256=good, by=merger), "a guide")
    send(0, 1, -delta(5), "against it")
    log.add(barrier(2, one, guide_sha256=earlier, by=merger), "a guide whose signature names no task")
    send(0, 2, -delta(5), "counts")
    log.add(revoke_bytes("", f"{serial_of(by.certificate):x}", by=operator), "bars the guardian")
    log.add(barrier(3, one, guide_sha256=good, by=merger), "a guide of before")
    send(1, 3, -delta(5), "counts")
    log.add(tick_bytes(6, by=worker_signer().of_task(DOMAIN)), "closes the window")
    return log


LOGS: Final = {
    "shares, quarantine, time": shares,
    "guides": guided,
    "other defences": unguarded,
    "policies old and new": unknown,
    "guides of a task": of_the_task,
}
"""Each by its name."""


def log_cases() -> dict[str, Any]:
    """Every log, those of older policies first."""
    cases = [case_of(name, make()) for name, make in (logs.LOGS | LOGS).items()]
    return document(
        "logs of one partition: each record's verdict, and each window's payload, sums and state",
        cases,
        authorities=authorities(),
    )
