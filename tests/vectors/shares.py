"""Vectors of logs since ``fluvial/policy/v3``: shares, time, quarantine, what is usual, guides, and what older ones
do not know."""

from __future__ import annotations

from collections.abc import Callable
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
from schemas.known import SINCE_POLICY_V3
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
    guardian_signer,
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
from tests.vectors.logs import serial_of
from tests.vectors.replaying import Log

V3: Final = "fluvial/policy/v3"
V4: Final = "fluvial/policy/v4"
ALONG: Final = delta(5, BUFFERED)
WEIGHED: Final = ALONG[: BUFFERED.trainable.parameters]
"""What guides point along."""
WHOLE: Final = (1 << 63) - 1
"""The largest number of a record."""
OTHER: Final = Layout.of([("t", (3,))])
"""A layout that is no task's."""
SINCE_V3: Final = {
    name: avro.schemas_for(name)[first - 1].header for name, first in sorted(SINCE_POLICY_V3.items())
}
"""Records of which a version came with ``fluvial/policy/v3``, and that version's header."""


def rules(kind: str = "median", format_name: str = V3, **sections: Any) -> Policy:
    """A policy, of v3 where nobody says so, in which everything happens soon; ``sections`` add to its keys."""
    small: dict[str, Any] = {
        "format": format_name,
        "window": {"updates_max": 100, "records_max": 100},
        "staleness": {"versions_max": 2, "seconds_max": 30.0},
        "defence": {
            "kind": kind,
            "norm_clip_medians": 2.0,
            "norm_clip_floor": 0.1,
            "quarantine_refusals": 2,
            "quarantine_versions": 2,
        },
    }
    for name, keys in sections.items():
        small[name] = small.get(name, {}) | keys
    return policy_from_mapping(small)


def barrier(version: int, rules: Policy, **changed: Any) -> bytes:
    """A signed Barrier v2."""
    said: dict[str, Any] = {"usual_norm": 0.0, "usual_cosine": 0, "usual_share": 0, "guide_sha256": ""}
    return barrier_bytes(version, rules, **(said | changed))


def update(
    device: str, base: int, values: npt.NDArray[np.float32], codec: str = "int8", **changed: Any
) -> bytes:
    """A signed update with these deltas."""
    return update_bytes(device, base=base, tensors=encoded(values, codec, 3), codec=codec, **changed)


def guide_bytes(
    version: int, values: npt.NDArray[np.float32], *, by: Signer | None = None, **changed: Any
) -> bytes:
    """A guide's object; ``values`` are of the weights of one of the factories' layouts."""
    layout = BUFFERED.trainable if values.size == BUFFERED.trainable.parameters else LAYOUT
    direction = codecs.direction_of(values.astype(np.float64), layout)
    fields: dict[str, Any] = {
        "task": TASK,
        "version": version,
        "model_sha256": model_sha(version),
        "examples": 60,
    }
    return signed_guide(by or guardian_signer(), direction=direction, **(fields | changed))


def guide(log: Log, version: int, values: npt.NDArray[np.float32], **changed: Any) -> str:
    """A guide in the store of a log: its hash."""
    return log.keep(guide_bytes(version, values, **changed))


def shares() -> Log:
    """Token buckets, quarantine and bases that grow old in time, under the default defence."""
    one = rules(updates={"norm_clip": 0.5, "codecs": ["int8", "float32", "int4"]})
    log, names = Log(one), devices(9)
    log.keep(one.canonical())
    now, step = NOW_MS, delta(5)
    zeros = np.zeros_like(step)

    def add(value: bytes, note: str = "") -> None:
        log.add(value, note, now)

    add(update(names[0], 0, step), "the first of two saved contributions")
    add(update(names[1], 0, zeros), "changes nothing: scored, so it takes a contribution")
    add(barrier(1, one), "closes the window; nothing is usual yet")
    now += 10_000
    add(update(names[0], 1, step), "has two again, takes one")
    add(update(names[0], 0, step), "a duplicate takes none")
    add(update(names[1], 1, zeros), "its second anomalous one of two brings it into quarantine")
    add(update(names[2], 0, step, "float32"), "one version late")
    add(update(names[2], 1, step, "int4"), "the last contribution that it has at this version")
    add(barrier(2, one, usual_norm=0.15, usual_share=1), "what is usual is known from here on")
    now += 1_000
    add(update(names[1], 2, step), "in quarantine")
    add(update(names[2], 2, step), "its third in eight versions: under median that is nothing; clipped")
    add(update(names[2], 2, step), "a duplicate is said before shares are looked at")
    add(update(names[2], 1, step), "a duplicate")
    add(update(names[3], 2, zeros), "changes nothing")
    add(update(names[4], 0, step), "counts")
    add(update(names[4], 1, step), "counts")
    add(update(names[4], 2, step), "over its share")
    later = update_bytes(names[4], base=2, codec="a-later-one", tensors=encoded(step))
    add(later, "over its share before its form is looked at")
    add(barrier(3, one, usual_norm=0.01, usual_share=3), "the usual norm is below the floor")
    now += 20_000
    add(update(names[0], 3, step), "clipped to the floor")
    add(update(names[1], 3, step), "its quarantine is over: counts")
    add(update(names[5], 0, step), "a base beyond versions_max, superseded 31 s ago: too old")
    add(update(names[5], 1, step), "two versions old: welcome")
    add(barrier(4, one, usual_norm=1e308, usual_share=WHOLE), "base 0 is forgotten")
    now += 29_999
    add(update(names[1], 4, step), "counts again: what was scored before is forgotten")
    add(update(names[6], 1, step), "superseded 50.999 s ago")
    add(update(names[6], 2, step), "two versions old, however long ago")
    add(barrier(9, one, usual_norm=float("nan"), usual_share=-1), "jumps over versions")
    now -= 5_000
    add(update(names[7], 2, step), "superseded too long ago for its version's barrier: forgotten")
    add(update(names[7], 3, step), "superseded 24.999 s before this record's time: welcome, the least weight")
    add(update(names[7], 5, step), "a version that never came")
    add(update(names[7], 4, step), "older than versions_max, young in time")
    add(barrier(13, one), "nobody's entry is old enough to be forgotten but for those of before version 6")
    add(update(names[8], 9, step), "counts")
    add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


def direction(factor: float, aside: float = 0.0) -> npt.NDArray[np.float32]:
    """Values of ``BUFFERED`` whose weights are so far along the guide of these logs, and so far aside."""
    values, weights = ALONG.copy(), BUFFERED.trainable.parameters
    values[:weights] = np.float32(factor) * ALONG[:weights] + np.float32(aside) * delta(6, BUFFERED)[:weights]
    return values


def send(
    log: Log, name: str, base: int, values: npt.NDArray[np.float32], note: str, codec: str = "int8"
) -> None:
    """An update with buffers."""
    tensors = encoded(values, codec, 3, BUFFERED)
    log.add(update_bytes(name, base=base, tensors=tensors, codec=codec, layout=BUFFERED), note)


def lengths() -> Log:
    """Under v4 a norm counts by its square, in eighths of what it is clipped to; and v3 again, where it does not."""
    new, by_updates = (
        rules(format_name=V4, updates={"norm_clip": 0.5}, defence={"usual_norm_by": by})
        for by in ("squares", "updates")
    )
    old = rules(updates={"norm_clip": 0.5})
    log, names, step = Log(new), iter(devices(60)), delta(5)
    unit = (step / np.float32(np.linalg.norm(step))).astype(np.float32)
    for one in (new, by_updates, old):
        log.keep(one.canonical())

    def send_all(base: int, *norms: float) -> None:
        for norm in norms:
            log.add(update(next(names), base, np.float32(norm) * unit, "float32"))

    send_all(0, 0.001, 0.0312, 0.0313, 0.09, 0.25, 0.46, 0.48, 0.5, 3.0)
    log.add(barrier(1, new, usual_norm=0.125, usual_share=1), "what counts whole is shorter from here on")
    often = next(names)
    log.add(update(often, 0, unit, "float32"), "its first of this version")
    log.add(
        update(often, 1, np.float32(0.1) * unit, "float32"), "its second: half of its share, by its square"
    )
    send_all(1, 0.01, 0.1, 0.24, 0.25, 0.3)
    log.add(barrier(2, by_updates, usual_norm=0.125), "each counts alike")
    send_all(2, 0.01, 0.3)
    log.add(barrier(3, old, usual_norm=0.125), "v3: each counts alike")
    send_all(3, 0.01, 0.3)
    log.add(tick_bytes(len(log.records) - 3), "of another window")
    log.add(barrier(4, new), "closes the window")
    return log


def guided() -> Log:
    """Guides, young and old; agreement and fairness; buffers beside; a guardian that is revoked."""
    one = rules("guide", updates={"norm_clip": 2.0, "codecs": ["int8", "float32"]})
    log, names = Log(one, BUFFERED), devices(16)
    log.keep(one.canonical())
    good = {version: guide(log, version, WEIGHED) for version in (0, 2, 5, 6)}
    send(log, names[0], 0, direction(-1.0), "no guide yet, so as median has it: counts")
    log.add(barrier(1, one, guide_sha256=good[0]), "a guide for the version before")
    send(log, names[0], 1, direction(-1.0), "against the guide")
    send(log, names[1], 1, direction(1.0), "with it: no cosine is usual, so 0 is")
    send(log, names[2], 1, direction(0.3, 1.0), "aside: the usual cosine is 0 as well", "float32")
    send(log, names[3], 1, direction(0.0), "changes nothing")
    usual = {"usual_norm": 0.1, "usual_cosine": 40, "usual_share": 1}
    log.add(barrier(2, one, guide_sha256=good[2], **usual), "a guide for its own version")
    send(log, names[1], 2, direction(0.5, 1.0), "below the usual cosine, its device above the usual share")
    send(
        log, names[4], 2, direction(0.5, 1.0), "the same of a device that comes for the first time", "float32"
    )
    send(log, names[0], 2, direction(-0.3, 1.0), "its second one against the guide: quarantine")
    send(log, names[0], 1, direction(1.0), "the base that it answered")
    log.add(barrier(3, one, guide_sha256=good[0]), "a guide of three versions before: too old")
    send(log, names[5], 3, direction(-1.0), "nobody is against a guide that there is not")
    log.add(barrier(4, one, guide_sha256=good[5]), "a guide for a version to come")
    send(log, names[5], 4, direction(-1.0), "counts")
    log.add(barrier(5, one, guide_sha256=good[2]), "of three before")
    log.add(
        barrier(6, one, guide_sha256=good[6], usual_cosine=-40, usual_share=2), "a cosine below 0 is usual"
    )
    send(log, names[9], 6, direction(0.3, 1.0), "at its whole weight")
    log.add(
        barrier(7, one, guide_sha256=good[6], usual_cosine=WHOLE, usual_share=WHOLE), "two versions: young"
    )
    send(log, names[9], 7, direction(1.0), "at the least weight that there is")
    serial = f"{serial_of(guardian_signer().certificate):x}"
    log.add(revoke_bytes("", serial), "bars the guardian: its guide stands until the next barrier")
    send(log, names[10], 7, direction(-1.0), "against the guide")
    log.add(barrier(8, one, guide_sha256=good[6]), "a revoked guardian's")
    send(log, names[10], 8, direction(-1.0), "counts")
    log.add(barrier(9, one), "no guide")
    return log


def none_of_them() -> Log:
    """Objects that are no guides, each for the version before: partitions go on without."""
    one = rules("guide", updates={"norm_clip": 2.0})
    log, names = Log(one, BUFFERED), iter(devices(30))
    log.keep(one.canonical())
    whole = codecs.direction_of(WEIGHED.astype(np.float64), BUFFERED.trainable)
    by, small = guardian_signer(), codecs.direction_of(WEIGHED[:3].astype(np.float64), OTHER)

    def of(version: int, data: bytes) -> bytes:
        fields = {"task": TASK, "version": version, "model_sha256": model_sha(version), "examples": 60}
        return by.sign("Guide", fields | {"direction": data})

    def scaled(scale: float) -> bytes:
        return encode_direction(replace(whole, scales=(scale, *whole.scales[1:])))

    tried: dict[str, Callable[[int], bytes]] = {
        "one that is good": lambda v: guide_bytes(v, WEIGHED),
        "of another model": lambda v: guide_bytes(v, WEIGHED, model_sha256=sha("another")),
        "by an operator": lambda v: guide_bytes(v, WEIGHED, by=operator_signer()),
        "by another CA": lambda v: guide_bytes(
            v, WEIGHED, by=signer("control", Role.GUARDIAN, "g", secret="z")
        ),
        "signed for another task": lambda v: guide_bytes(v, WEIGHED, by=by.of_task(DOMAIN)),
        "of another task": lambda v: guide_bytes(v, WEIGHED, task="another"),
        "bytes that are none": lambda _: b"no guide",
        "cut short": lambda v: guide_bytes(v, WEIGHED)[:-1],
        "another record": lambda _: barrier(1, one),
        "of zeros": lambda v: guide_bytes(v, np.zeros_like(WEIGHED)),
        "with a scale below 0": lambda v: of(v, scaled(-1.0)),
        "with a scale that is no number": lambda v: of(v, scaled(float("nan"))),
        "beyond all bounds": lambda v: of(v, scaled(1e101)),
        "of another layout": lambda v: of(v, encode_direction(small)),
        "with bytes behind its direction": lambda v: of(v, encode_direction(whole) + bytes(8)),
        "whose direction has another header": lambda v: of(v, respaced(encode_direction(whole))),
        "of no direction": lambda v: of(v, b""),
    }
    for version, (note, make) in enumerate(tried.items()):
        log.add(barrier(version + 1, one, guide_sha256=log.keep(make(version))), f"a guide: {note}")
        send(log, next(names), version + 1, direction(-1.0), "against it, where it is one")
    log.add(barrier(len(tried) + 1, one), "no guide")
    return log


def respaced(file: bytes) -> bytes:
    """A safetensors file with eight spaces more in its header, which says the same."""
    size = int.from_bytes(file[:8], "little")
    return (size + 8).to_bytes(8, "little") + file[8 : 8 + size] + b" " * 8 + file[8 + size :]


def unguarded() -> Log:
    """Under v3 with other defences: peers and none; without shares; and a barrier of the first version."""
    step, names = delta(5), devices(9)
    peers = rules(
        "peers", defence={"history_updates_min": 2, "history_updates": 3, "norm_deviations_max": 2.0}
    )
    none = rules("none", shares={"per_version": 0}, staleness={"seconds_max": 0.0})
    log = Log(peers)
    for one in (peers, none):
        log.keep(one.canonical())
    reference = log.keep(encode_direction(codecs.direction_of(step.astype(np.float64), LAYOUT)))
    log.add(
        barrier(1, peers, reference_sha256=reference, usual_norm=0.001, usual_share=1), "clips nothing by it"
    )
    log.add(update(names[0], 1, step))
    log.add(update(names[1], 1, np.float32(1.1) * step, "float32"))
    log.add(update(names[2], 1, np.float32(9) * step, "float32"), "its norm is far above its peers'")
    log.add(update(names[3], 1, -step), "against the last step")
    log.add(update(names[4], 1, np.zeros_like(step)), "zeros count")
    log.add(
        barrier(2, none, reference_sha256=reference), "no shares from here on, and norms are not remembered"
    )
    log.add(update(names[2], 2, np.float32(9) * step, "float32"), "counts")
    log.add(update(names[2], 0, -step), "counts: two versions late")
    log.add(update(names[2], 1, -step), "a duplicate")
    log.add(barrier(3, none), "versions only: base 0 is too old")
    log.add(update(names[5], 0, step), "too stale")
    log.add(barrier_bytes(4, peers), "a barrier of the first version: nothing is usual")
    log.add(update(names[2], 4, step), "what it had before is remembered")
    log.add(tick_bytes(13), "closes the window")
    return log


def unknown() -> Log:
    """To a policy before v3 what came with it is of an unknown schema, wherever it is named; and policies change."""
    old = policy_from_mapping(
        {"window": {"updates_max": 100, "records_max": 100}}, default_format="fluvial/policy/v2"
    )
    new = rules()
    log, names, by = Log(old), devices(9), guardian_signer()
    for one in (old, new):
        log.keep(one.canonical())
    later = SINCE_V3

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

    def sent(n: int, base: int, values: npt.NDArray[np.float32], note: str) -> None:
        log.add(update(names[n], base, values, by=device_signer(names[n]).of_task(DOMAIN)), note)

    log.add(barrier(1, one, guide_sha256=good, by=merger), "a guide")
    sent(0, 1, -delta(5), "against it")
    log.add(barrier(2, one, guide_sha256=earlier, by=merger), "a guide whose signature names no task")
    sent(0, 2, -delta(5), "counts")
    log.add(revoke_bytes("", f"{serial_of(by.certificate):x}", by=operator), "bars the guardian")
    log.add(barrier(3, one, guide_sha256=good, by=merger), "a guide of before")
    sent(1, 3, -delta(5), "counts")
    log.add(tick_bytes(6, by=worker_signer().of_task(DOMAIN)), "closes the window")
    return log


LOGS: Final = {
    "shares, quarantine, time": shares,
    "lengths": lengths,
    "guides": guided,
    "no guides": none_of_them,
    "other defences": unguarded,
    "policies old and new": unknown,
    "guides of a task": of_the_task,
}
"""Each by its name."""
