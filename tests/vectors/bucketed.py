"""Vectors of logs under ``fluvial/policy/v4``: updates in buckets, and what older policies do not know."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aggregation.policy import Policy, policy_from_mapping
from schemas import avro
from tests.factories import (
    BUFFERED,
    DOMAIN,
    LAYOUT,
    delta,
    device_signer,
    devices,
    merger_signer,
    tick_bytes,
    worker_signer,
)
from tests.vectors import below, chosen, cohorts, logs, shares, varied
from tests.vectors.replaying import Log, case_of
from tests.vectors.shares import barrier, rules, send, update
from tests.vectors.wire import authorities
from tests.vectors.writing import document

V4: Final = "fluvial/policy/v4"


def bucketed(kind: str, buckets: int, **sections: Any) -> Policy:
    """A policy of v4 in which everything happens soon."""
    small: dict[str, Any] = {
        "format": V4,
        "window": {"updates_max": 6, "records_max": 100},
        "staleness": {"versions_max": 2},
        "updates": {"norm_clip": 0.5, "codecs": ["int8", "float32", "int4"]},
        "merge": {"kind": kind, "buckets": buckets},
    }
    return policy_from_mapping(small | sections)


def buckets() -> Log:
    """Devices that move from bucket to bucket with the version, buffers beside; full, late and empty windows."""
    one = bucketed("krum", 3)
    log, names = Log(one, BUFFERED), devices(9)
    log.keep(one.canonical())
    values = np.abs(delta(5, BUFFERED))
    for n, device in enumerate(names[:5]):
        send(
            log,
            device,
            0,
            values * np.float32(1 + n),
            "in its bucket of version 0",
            ("int8", "float32", "int4")[n % 3],
        )
    log.add(barrier(1, one), "closes the window: its buckets are those of version 0")
    for n, device in enumerate([names[0], names[6], names[1], names[7], names[2]]):
        send(log, device, 1 - n % 2, values, "in its bucket of version 1, also where it answers version 0")
    log.add(update(names[5], 9, delta(5)), "a base to come: in no bucket")
    send(log, names[5], 1, values, "fills the window: buckets of a full one")
    log.add(b"junk", "refused")
    log.add(tick_bytes(len(log.records) - 1), "closes a window in which every bucket is empty")
    log.add(barrier(2, one), "closes nothing")
    send(log, names[0], 2, values, "alone: all other buckets are empty")
    log.add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


def changing() -> Log:
    """The number of buckets follows the policy in force: three, one, five, one of before, eight."""
    policies = {
        "three": bucketed("mixing", 3),
        "one": bucketed("mean", 1),
        "five": bucketed("geometric_median", 5, defence={"kind": "none"}),
        "one, in the words of v3": rules(),
        "eight": bucketed("krum", 8, merge={"kind": "krum", "buckets": 8, "byzantine": 2, "iterations": 3}),
    }
    first = policies["three"]
    log, names = Log(first, domain=DOMAIN), devices(9)
    merger, worker = merger_signer().of_task(DOMAIN), worker_signer().of_task(DOMAIN)
    for one in policies.values():
        log.keep(one.canonical())
    for version, (note, one) in enumerate(policies.items()):
        if version:
            log.add(barrier(version, one, by=merger), f"{note}; closes the window of before")
        for device in names[:4]:
            by = device_signer(device).of_task(DOMAIN)
            log.add(update(device, version, delta(5), by=by), f"buckets: {note}")
    log.add(tick_bytes(len(log.records) - 4, by=worker), "closes the window")
    return log


def unknown() -> Log:
    """To a policy of v3 a RegionalAggregate v3 is of an unknown schema, wherever it is named."""
    old, new = rules(), bucketed("krum", 3)
    log, names, by = Log(old, LAYOUT), devices(9), worker_signer()
    for one in (old, new):
        log.keep(one.canonical())
    headers = {f"v{schema.version}": schema.header for schema in avro.schemas_for("RegionalAggregate")}

    def add_all(when: str) -> None:
        for number, header in headers.items():
            log.add(header, f"no envelope, but a RegionalAggregate {number} {when}")
            fields = {"kind": "Tick", "payload": header, "certificate": by.certificate, "signature": b""}
            log.add(avro.encode("SignedEnvelope", fields), f"one that is called a Tick {when}")
            log.add(by.sign_payload("RegionalAggregate", header), f"one in an envelope {when}")

    add_all("under v3")
    log.add(update(names[0], 0, delta(1)), "counts")
    log.add(barrier(1, new), "brings v4; closes a window of before")
    add_all("under v4")
    log.add(update(names[0], 1, delta(1)), "counts")
    log.add(barrier(2, old), "brings v3 back; closes a window with buckets")
    log.add(update(names[0], 2, delta(1)), "counts")
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


LOGS: Final = {"buckets": buckets, "numbers of buckets": changing, "what v3 does not know": unknown}
"""Each by its name."""


def log_cases() -> dict[str, Any]:
    """Every log, those of older policies first."""
    made = logs.LOGS | shares.LOGS | LOGS | chosen.LOGS | varied.LOGS | cohorts.LOGS | below.LOGS
    cases = [case_of(name, make()) for name, make in made.items()]
    return document(
        "logs of one partition: each record's verdict, and each window's payload, sums and state",
        cases,
        authorities=authorities(),
    )
