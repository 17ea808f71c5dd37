"""The order of all checks: for each one a record that fails it, and of the later ones as many as can fail at once.

``CHECKS`` is the table of ``schemas/meaning.md``: its numbers and outcomes are held to what the fold says.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from aggregation import codecs
from schemas import avro
from schemas.certificates import Role
from schemas.checkpoints import encode_direction
from tests.factories import (
    BUFFERED,
    DOMAIN,
    NOW_MS,
    barrier_bytes,
    delta,
    device_signer,
    devices,
    encoded,
    key,
    merger_signer,
    operator_signer,
    pardon_bytes,
    revoke_bytes,
    signer,
    tick_bytes,
    update_bytes,
    update_record,
    worker_signer,
)
from tests.vectors import below, chosen, cohorts, shares
from tests.vectors.logs import device_serial, rules, serial_of
from tests.vectors.replaying import Log, case_of
from tests.vectors.wire import authorities
from tests.vectors.writing import document

BYTES_MAX: Final = 4000
FIRST_BARRIER: Final = avro.schemas_for("Barrier")[0].header


class Probe(NamedTuple):
    """A record that fails check ``number`` first, and ``also`` these."""

    number: int
    value: bytes | None
    also: tuple[int, ...] = ()


def envelope(kind: str, payload: bytes, certificate: bytes = b"", signature: bytes = b"") -> bytes:
    """An envelope of anything."""
    fields = {"kind": kind, "payload": payload, "certificate": certificate, "signature": signature}
    return avro.encode("SignedEnvelope", fields)


def _bytes_probes(payload: bytes) -> Iterator[Probe]:
    verdict, outer = avro.schema_for("Verdict").header, avro.schema_for("SignedEnvelope").header
    aggregate = avro.schemas_for("RegionalAggregate")[0].header
    yield Probe(1, None)
    yield Probe(2, bytes(BYTES_MAX + 1), (3,))
    yield Probe(3, b"\xc3\x01 short")
    yield Probe(3, b"\xc3\x02" + outer[2:])
    yield Probe(4, b"\xc3\x01" + bytes(8), (6,))
    yield Probe(5, verdict + b"\x01", (6,))
    yield Probe(6, outer + b"\x02")
    yield Probe(6, envelope("Tick", payload) + b"\0", (9,))
    yield Probe(7, envelope("None of ours", b"x"), (9, 11, 12))
    yield Probe(8, envelope("None of ours", b"\xc3\x01" + bytes(8)), (9, 11, 12))
    yield Probe(9, envelope("Tick", payload), (12,))
    yield Probe(11, envelope("RegionalAggregate", aggregate), (12, 16))


def _signer_probes(name: str, payload: bytes) -> Iterator[Probe]:
    expired = signer("eu", Role.WORKER, "w-1", not_after=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    yield Probe(12, envelope("ClientUpdate", payload[:-1], b"\x30"), (16,))
    yield Probe(13, envelope("ClientUpdate", payload[:-1], expired.certificate), (14, 15, 16))
    yield Probe(14, envelope("ClientUpdate", payload[:-1], worker_signer().certificate), (15, 16))
    yield Probe(15, envelope("ClientUpdate", payload[:-1], device_signer(name).certificate), (16,))
    yield Probe(16, device_signer(name).sign_payload("ClientUpdate", payload[:-1]))
    barrier = merger_signer().sign_payload("Barrier", FIRST_BARRIER + b"\x02")
    yield Probe(16, barrier)
    yield Probe(17, tick_bytes(0, region="us", task="other", partition=5), (53, 54, 55))
    for number, said, also in ((18, "d-other", (19, 20)), (19, name, (20,))):
        fields = update_record(said, update_id="u" * 65, region="us")
        yield Probe(number, device_signer(name).sign("ClientUpdate", fields), also)
    yield Probe(20, update_bytes(name, region="us", task="other"), (23,))


def _place_probes(names: list[str], revoked: str, certificate: str) -> Iterator[Probe]:
    stranger = devices(1, partition=1, partitions=2)[0]
    yield Probe(21, update_bytes(revoked, task="other", base=9), (23, 26))
    yield Probe(22, update_bytes(certificate, task="other", base=9), (23, 26))
    yield Probe(
        23, update_bytes(stranger, by=device_signer(stranger, "us"), region="us", task="other"), (24, 25)
    )
    yield Probe(24, update_bytes(stranger, by=device_signer(stranger, "us"), region="us", base=9), (25, 26))
    yield Probe(25, update_bytes(stranger, base=9), (26, 36))
    yield Probe(26, update_bytes(names[0], base=9), (36, 37))
    yield Probe(28, update_bytes(names[0], base=0), (36, 37))
    yield Probe(28, update_bytes(names[0], base=-1), (36, 37))
    yield Probe(29, update_bytes(names[0], base=2), (36, 37))
    yield Probe(30, update_bytes(names[0], base=1, base_sha256=""), (32, 36, 37))
    yield Probe(32, update_bytes(names[0], base=1), (36, 37))


Tensors = list[codecs.EncodedTensor]


def _spoiled(tensors: Tensors, at: int, **changed: Any) -> Tensors:
    return [*tensors[:at], replace(tensors[at], **changed), *tensors[at + 1 :]]


def _form_probes(name: str, good: Tensors, packed: Tensors) -> Iterator[Probe]:
    def update(tensors: Tensors, codec: str = "float32") -> bytes:
        return update_bytes(name, base=3, codec=codec, tensors=tensors, layout=BUFFERED)

    renamed = _spoiled(good, 0, name="other", shape=(2,), data=b"")
    yield Probe(36, update(renamed, "int8"), (37, 38, 39))
    yield Probe(36, update(renamed, "a-later-one"), (37, 38, 39))
    yield Probe(37, update(renamed), (38, 39))
    yield Probe(37, update([good[1], good[0], *good[2:]]), (38, 39))
    yield Probe(37, update(good[:-1]))
    yield Probe(38, update(_spoiled(good, 0, shape=(1,), data=b"")), (39,))
    yield Probe(39, update(_spoiled(_spoiled(good, 0, data=b"\0" * 5), 1, scale=2.0)), (41,))
    wrong = _spoiled(packed, 2, data=b"\x78" + packed[2].data[1:])
    yield Probe(40, update(_spoiled(wrong, 3, data=b""), "int4"), (42,))
    yield Probe(41, update(_spoiled(_spoiled(good, 0, scale=0.5), 3, data=b"")), (42,))
    yield Probe(42, update(_spoiled(_spoiled(good, 4, data=b""), 4, scale=3.0, data=b"\0")), (43,))
    nan = np.full(3, np.nan, dtype="<f4").tobytes()
    yield Probe(43, update(_spoiled(_spoiled(good, 4, scale=3.0), 3, data=nan)), (44,))
    yield Probe(44, update(_spoiled(good, 4, data=np.array([-1, 0, np.inf], dtype="<f4").tobytes())), (45,))
    yield Probe(44, update(_spoiled(good, 2, scale=-1.0)))
    yield Probe(44, update(_spoiled(good, 2, scale=float("nan"))))
    yield Probe(44, update(_spoiled(packed, 1, scale=float("inf")), "int4"))


def _content_probes(names: list[str], direction: np.ndarray[Any, Any]) -> Iterator[Probe]:
    weights = BUFFERED.trainable.parameters

    def update(name: str, factor: float, *, below: bool = False) -> bytes:
        values = direction.copy()
        values[:weights] *= np.float32(factor)
        values[-1] = -1.0 if below else values[-1]
        tensors = encoded(values, "float32", 0, BUFFERED)
        return update_bytes(name, base=3, codec="float32", tensors=tensors, layout=BUFFERED)

    yield Probe(45, update(names[0], -1e6, below=True), (46, 47, 48))
    yield Probe(46, update(names[0], -1e6), (47, 48))
    yield Probe(47, update(names[0], -50.0), (48,))
    yield Probe(48, update(names[1], -1.0))
    yield Probe(51, update(names[2], 1.0))
    yield Probe(52, envelope("Barrier", FIRST_BARRIER, b"\x30"), (53, 54))
    yield Probe(
        53, tick_bytes(0, task="other", region="us", partition=5, by=worker_signer("w-1", "us")), (54, 55)
    )
    yield Probe(54, tick_bytes(0, region="us", partition=5, by=worker_signer("w-1", "us")), (55,))
    yield Probe(55, tick_bytes(0, partition=1))
    yield Probe(57, tick_bytes(0))


def _log_of_checks(probes: list[Probe]) -> tuple[Log, list[dict[str, Any]]]:
    one = rules(
        updates={"codecs": ["float32", "int4"], "bytes_max": BYTES_MAX},
        window={"updates_max": 100, "records_max": 1000},
        anomaly={"history_updates_min": 4},
    )
    log, names = Log(one, BUFFERED, partitions=2), devices(9, partitions=2)
    log.keep(one.canonical())
    direction = delta(5, BUFFERED)
    step = codecs.direction_of(
        direction[: BUFFERED.trainable.parameters].astype(np.float64), BUFFERED.trainable
    )
    reference = log.keep(encode_direction(step))
    log.add(revoke_bytes(names[7]))
    log.add(revoke_bytes("", f"{device_serial(names[8]):x}"))
    log.add(barrier_bytes(1, one, reference_sha256=reference))
    for name in names[:4]:
        tensors = encoded(direction, "float32", 0, BUFFERED)
        log.add(update_bytes(name, base=1, codec="float32", tensors=tensors, layout=BUFFERED))
    log.add(barrier_bytes(3, one, reference_sha256=reference), "version 2 never came")
    good, packed = encoded(direction, "float32", 0, BUFFERED), encoded(direction, "int4", 0, BUFFERED)
    payload = avro.encode("ClientUpdate", update_record(names[4], layout=BUFFERED))
    probes += _bytes_probes(payload)
    probes += _signer_probes(names[4], payload)
    probes += _place_probes(names, names[7], names[8])
    probes += _form_probes(names[4], good, packed)
    probes += _content_probes(names[4:7], direction)
    rows = []
    for probe in probes:
        rows.append({"offset": len(log.records), "check": probe.number, "also": list(probe.also)})
        log.add(probe.value, f"fails check {probe.number}")
    return log, rows


def _older() -> tuple[Log, list[dict[str, Any]]]:
    """A policy of v1, to which the newer update is of an unknown schema."""
    log, name = Log(rules("fluvial/policy/v1")), devices(1)[0]
    record = avro.encode("ClientUpdate", update_record(name, codec="int4"))
    log.add(envelope("ClientUpdate", record, key("none").public_key().public_bytes_raw()), "fails check 10")
    return log, [{"offset": 0, "check": 10, "also": [12, 15]}]


def _revoked() -> tuple[Log, list[dict[str, Any]]]:
    """In a task of v5, whose operators can bar a worker."""
    log, worker = Log(rules(), partitions=2, domain=DOMAIN), worker_signer().of_task(DOMAIN)
    serial = f"{serial_of(worker.certificate):x}"
    log.add(revoke_bytes("", serial, by=operator_signer().of_task(DOMAIN)))
    log.add(tick_bytes(0, partition=1, by=worker), "fails check 55")
    log.add(tick_bytes(0, by=worker), "fails check 56")
    log.add(tick_bytes(0, by=worker_signer("w-2").of_task(DOMAIN)), "fails none")
    rows = [(1, 55, [56]), (2, 56, []), (3, 57, [])]
    return log, [{"offset": offset, "check": number, "also": also} for offset, number, also in rows]


def _shared() -> tuple[Log, list[dict[str, Any]]]:
    """A policy of v3: time, shares, quarantine, and the defences that it brought; 45 is before them."""
    one = shares.rules("guide", defence={"guide_cosine_min": 0.1, "quarantine_versions": 9})
    log, names, direction = Log(one, BUFFERED), devices(9), delta(5, BUFFERED)
    log.keep(one.canonical())
    weights = BUFFERED.trainable.parameters

    def update(name: str, base: int, factor: float, codec: str = "float32", **changed: Any) -> bytes:
        values = direction.copy()
        values[:weights] *= np.float32(factor)
        tensors = encoded(values, "float32", 0, BUFFERED)
        return update_bytes(name, base=base, codec=codec, tensors=tensors, layout=BUFFERED, **changed)

    log.add(update(names[0], 0, 0.0), "the first of two that bring it into quarantine")
    log.add(shares.barrier(1, one))
    log.add(update(names[0], 1, 0.0), "the second")
    guide = shares.guide(log, 1, direction[:weights])
    log.add(shares.barrier(2, one, guide_sha256=guide))
    log.add(update(names[1], 0, 1.0), "one of two")
    log.add(update(names[1], 1, 1.0), "two of two")
    later = NOW_MS + 29_000
    log.add(shares.barrier(3, one, guide_sha256=guide), timestamp_ms=later)
    log.add(update(names[1], 3, 1.0), "its only one of this version", later)
    log.add(
        shares.barrier(4, one, guide_sha256=shares.guide(log, 3, direction[:weights])), timestamp_ms=later + 1
    )
    log.add(update(names[1], 4, 1.0), "and of this", later)
    rows = []
    for number, value, also in (
        (28, update(names[1], 0, 0.0, "int4", base_sha256=""), (30, 33, 36)),
        (28, update(names[1], 1, 0.0, "int4", base_sha256=""), (30, 33, 36)),
        (32, update(names[1], 4, 0.0, "int4"), (33, 36)),
        (33, update(names[1], 2, 0.0, "int4"), (36,)),
        (35, update(names[0], 2, 0.0, "int4"), (36, 37)),
        (46, update(names[2], 2, -1e6), (50,)),
        (49, update(names[2], 2, 0.0), (50,)),
        (50, update(names[3], 2, -1.0), ()),
        (51, update(names[4], 2, 1.0), ()),
    ):
        rows.append({"offset": len(log.records), "check": number, "also": list(also)})
        log.add(value, f"fails check {number}", later + 11_000)
    return log, rows


def _later() -> tuple[Log, list[dict[str, Any]]]:
    """What a policy before v3 does not know: where it stands it is as unknown as bytes of nobody."""
    log, names = Log(rules()), shares.SINCE_V3
    rows = []
    for name, header in names.items():
        for number, value, also in (
            (4, header, [6]),
            (8, envelope("Tick", header, b"\x30"), [9, 12, 16]),
            (8, envelope(name, header, b"\x30"), [12, 16]),
        ):
            rows.append({"offset": len(log.records), "check": number, "also": also})
            log.add(value, f"fails check {number}: a later {name}")
    return log, rows


def _chosen() -> tuple[Log, list[dict[str, Any]]]:
    """Policies of v5: a round that is over, and a lot that is another's."""
    rounds = chosen.chosen(buffer={"mode": "rounds"}, staleness={"versions_max": 0})
    turns = chosen.chosen(
        selection={"kind": "slots", "slots": 2},
        staleness={"versions_max": 3},
        shares={"per_version": 1, "saved_max": 1},
    )
    log, value, rows = Log(rounds), delta(5), []
    for one in (rounds, turns):
        log.keep(one.canonical())
    odd, even = chosen.split(turns, 1, devices(9))

    def probe(number: int, update: bytes, *also: int) -> None:
        rows.append({"offset": len(log.records), "check": number, "also": list(also)})
        log.add(update, f"fails check {number}")

    log.add(shares.barrier(1, rounds))
    probe(27, shares.update(odd[0], 0, value, "int4", base_sha256=""), 28, 29)
    probe(51, shares.update(odd[0], 1, value))
    for version in (2, 3):
        log.add(shares.barrier(version, turns))
    log.add(shares.update(odd[1], 3, value), "its turn, and its one update of this version")
    probe(31, shares.update(odd[1], 2, value), 33)
    probe(33, shares.update(odd[1], 1, value))
    probe(51, shares.update(even[0], 2, value))
    return log, rows


def _pardoned() -> tuple[Log, list[dict[str, Any]]]:
    """A Pardon under a policy of v4, which does not know it, and under one of v5, in a genesis of v5."""
    old, new = chosen.strict(shares.V4), chosen.strict()
    log, header = Log(old, domain=DOMAIN), avro.schema_for("Pardon").header
    for one in (old, new):
        log.keep(one.canonical())
    (operator, worker), (name,) = (
        (one.of_task(DOMAIN) for one in (operator_signer("op-2"), worker_signer())),
        devices(1),
    )
    rows = []

    def probe(number: int, value: bytes, *also: int) -> None:
        rows.append({"offset": len(log.records), "check": number, "also": list(also)})
        log.add(value, f"fails check {number}: a Pardon")

    probe(4, header, 6)
    probe(8, envelope("Tick", header, b"\x30"), 9, 12, 16)
    probe(8, pardon_bytes(name, 9, by=operator))
    log.add(shares.barrier(1, new, by=merger_signer().of_task(DOMAIN)))
    probe(9, envelope("Tick", header, b"\x30"), 12, 16)
    probe(16, operator.sign_payload("Pardon", header + b"\x02"))
    probe(52, pardon_bytes(name, 9, by=worker, task="other", region="us"), 53, 54)
    probe(53, pardon_bytes(name, 9, by=operator, task="other", region="us"), 54)
    by = operator_signer().of_task(DOMAIN)
    log.add(revoke_bytes("", f"{serial_of(operator.certificate):x}", by=by))
    probe(54, pardon_bytes(name, 9, by=operator, region="us"), 56)
    probe(56, pardon_bytes(name, 9, by=operator))
    probe(57, pardon_bytes(name, 9, by=by))
    return log, rows


def check_cases() -> dict[str, Any]:
    """Every check with its probes."""
    cases = []
    tried = {
        "a policy of v2": _log_of_checks([]),
        "a policy of v1": _older(),
        "a genesis of v5": _revoked(),
        "a policy of v3": _shared(),
        "records of v3 under a policy of v2": _later(),
        "policies of v5": _chosen(),
        "records of v5": _pardoned(),
    }
    for name, (log, rows) in tried.items():
        cases.append(case_of(name, log) | {"checks": rows})
    cases += [cohorts.check_case(), below.check_case()]
    return document(
        "logs like those of logs.json; `checks` says which check of meaning.md a record fails first, and which also",
        cases,
        authorities=authorities(),
    )
