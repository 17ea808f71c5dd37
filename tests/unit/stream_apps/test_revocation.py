"""A Revoke bars every role of a task of v5, each partition by its own log; workers, audit and checker agree."""

from __future__ import annotations

from collections import Counter

import pytest
from cryptography import x509

from aggregation.fold.events import Barrier, Parked, Skip
from backends.skips import find_parking_skip, find_skips
from fluvial.proof.audit import audit_task
from schemas.envelope import KeyPair
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.factories import (
    barrier_bytes,
    merger_signer,
    operator_signer,
    revoke_bytes,
    tick_bytes,
    worker_signer,
)
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import copy_of

PARTITIONS = {"eu": 2}
PLACE = ("eu", 0)


def serial(of: KeyPair) -> str:
    return f"{x509.load_der_x509_certificate(of.certificate).serial_number:x}"


def revoke(federation: SmallFederation, of: KeyPair, *, by: KeyPair | None = None, partition: int = 0) -> int:
    signer = federation.signer(by or operator_signer())
    return federation.append("eu", partition, revoke_bytes("", serial(of), by=signer))


def verdicts(federation: SmallFederation, partition: int = 0) -> dict[int, tuple[str, int]]:
    found = {}
    for record in federation.records(verdicts_topic(federation.task, "eu"), partition):
        said = decode_verdict(record.value or b"")
        found[said.offset] = said.outcome, said.because.reason.code
    return found


def skip_bytes(federation: SmallFederation, offset: int, by: KeyPair) -> bytes:
    fields = {
        "task": federation.task,
        "region": "eu",
        "partition": 0,
        "offset": offset,
        "reason": "it raises",
    }
    return federation.signer(by).sign("Skip", fields)


def test_each_role_is_barred_in_the_partitions_that_say_so_and_nowhere_else() -> None:
    federation = SmallFederation(partitions=PARTITIONS)
    federation.rounds(1)
    thief, stolen, worker = merger_signer("m-9"), operator_signer("op-9"), worker_signer("w-9")
    for one in (thief, stolen, worker):
        revoke(federation, one)
    sha256 = federation.manifests[-1].reference_sha256
    barrier = barrier_bytes(9, federation.policy, by=federation.signer(thief), reference_sha256=sha256)
    expected: dict[int, tuple[str, int]] = {}
    expected[federation.append("eu", 0, barrier)] = "revoked", 414
    expected[federation.append("eu", 0, tick_bytes(0, by=federation.signer(worker)))] = "revoked", 414
    expected[federation.append("eu", 0, skip_bytes(federation, 0, stolen))] = "revoked", 414
    expected[revoke(federation, merger_signer(), by=stolen)] = "revoked", 414
    elsewhere = federation.append("eu", 1, tick_bytes(0, partition=1, by=federation.signer(worker)))
    federation.rounds(2)
    federation.fold()
    found = verdicts(federation)
    assert {at: found[at] for at in expected} == expected
    assert verdicts(federation, 1)[elsewhere] == ("control", 404)
    assert federation.version == 3
    assert federation.states["eu", 0].revoked == {
        f"certificate:{serial(one)}" for one in (thief, stolen, worker)
    }
    audit = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert audit.identical, audit.findings.shown
    assert copy_of(federation).check(drained=False).violations == ()


@pytest.mark.parametrize("form", ["fluvial/genesis/v4", "fluvial/genesis/v5"])
def test_a_device_that_is_called_like_a_certificate_bars_nobody_else_since_v5(form: str) -> None:
    federation = SmallFederation(partitions=PARTITIONS, document_format=form)
    named = serial(merger_signer())
    revoke_device = revoke_bytes(named, by=federation.signer(operator_signer()))
    federation.append("eu", 0, revoke_device)
    federation.rounds(1)
    federation.fold()
    outcomes = Counter(outcome for outcome, _ in verdicts(federation).values())
    assert outcomes["revoked"] == 0 and outcomes["accepted"] > 0


def test_before_v5_nobody_but_devices_is_barred() -> None:
    federation = SmallFederation(partitions=PARTITIONS, document_format="fluvial/genesis/v4")
    for one in (merger_signer(), worker_signer("w-1", "eu"), operator_signer()):
        revoke(federation, one)
    federation.rounds(2)
    federation.fold()
    assert Counter(outcome for outcome, _ in verdicts(federation).values())["revoked"] == 0
    assert federation.version == 2
    audit = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert audit.identical, audit.findings.shown


def test_a_skip_counts_only_if_its_operator_was_not_revoked_before_it() -> None:
    federation = SmallFederation(partitions=PARTITIONS)
    stolen, other = operator_signer("op-9"), operator_signer("op-8")
    first = federation.append("eu", 0, b"junk")
    revoke(federation, other, by=stolen)
    early = federation.append("eu", 0, skip_bytes(federation, first, stolen))
    revoke(federation, stolen)
    second = federation.append("eu", 0, b"junk")
    federation.append("eu", 0, skip_bytes(federation, second, stolen))
    federation.append("eu", 0, skip_bytes(federation, second, other))
    late = federation.append("eu", 0, skip_bytes(federation, second, operator_signer()))
    with federation.open_reader("skips") as reader:
        found = find_skips(reader, federation.trust, federation.task, PLACE, first=0, end=99)
        assert found == {first: Parked(early, "it raises"), second: Parked(late, "it raises")}
        parked = find_parking_skip(reader, federation.trust, federation.task, PLACE, second)
        assert parked == Parked(late, "it raises")


def test_whether_a_barrier_of_a_revoked_merger_needs_its_objects_is_asked_before_they_are_loaded() -> None:
    state = factories.state_of()
    barrier = Barrier(
        factories.TASK,
        "eu",
        7,
        "",
        "",
        "",
        factories.sha("no such policy"),
        0,
        "version",
        signer="certificate:ab",
    )
    assert state.applies(barrier)
    state.revoked.add("certificate:ab")
    assert not state.applies(barrier)
    assert Skip("t", "eu", 0, 1, "why").signer == ""
