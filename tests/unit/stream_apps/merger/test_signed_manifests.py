"""In tasks whose signatures name the genesis a manifest is signed by its merger: no other one is a version."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from aggregation.errors import IntegrityProblem
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.parents import check_parent
from fluvial.proof.checker import check_logs
from producers.sdk.bases import Bases
from schemas.certificates import Role
from schemas.checkpoints import encode_model
from schemas.documents import genesis_v4, manifest_v1, manifest_v2
from schemas.manifest_seals import require_sealed, sealed
from schemas.manifests import Manifest, Parent, Seal, decode_manifest
from schemas.objects import manifest_key, model_key, sha256_hex
from schemas.topics import models_topic, topics_of
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.announced import announced_manifests
from stream_apps.merger.holding import Holding
from stream_apps.merger.policies import Policies
from stream_apps.merger.windows import Windows
from stream_apps.process_context import ProcessContext
from tests import factories
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.envelope import Signer
    from stream_apps.merger.holding import Held

BEFORE = dt.datetime.fromtimestamp(factories.NOW_MS / 1000, dt.UTC) - dt.timedelta(days=1)
EXPIRED = {"not_after": BEFORE.replace(microsecond=0)}


@pytest.fixture
def federation() -> SmallFederation:
    """A task of the newest format whose version 1 its merger made and announced."""
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(1)
    return federation


def context_of(federation: SmallFederation) -> ProcessContext:
    return ProcessContext.of(
        genesis=federation.genesis,
        store=federation.objects,
        writer=federation.writer,
        key_pair=factories.merger_signer("m-2"),
        name="m-2",
        open_reader=federation.open_reader,
        clock=federation.clock,
    )


def held(federation: SmallFederation, data: bytes) -> Held:
    context = context_of(federation)
    policies = Policies(context)
    genesis = Adopting(context, policies).genesis()
    return Holding(context, policies).hold(data, genesis, Windows(context, genesis.cursors))


def by(who: Signer) -> Callable[[SmallFederation, Manifest], Manifest]:
    return lambda federation, good: sealed(good, who.of_task(federation.genesis.domain))


def for_another_task(_: SmallFederation, good: Manifest) -> Manifest:
    other = SmallFederation(task="other", partitions={"eu": 1})
    return sealed(good, factories.merger_signer().of_task(other.genesis.domain))


def keys_changed(_: SmallFederation, good: Manifest) -> Manifest:
    return msgspec.structs.replace(good, update_bytes=good.update_bytes + 1)


FORGED: dict[str, Callable[[SmallFederation, Manifest], Manifest]] = {
    "of the format before, which nobody signs": lambda _, good: msgspec.structs.replace(
        good, merger=None, format=manifest_v1.FORMAT
    ),
    "signed by nobody": lambda _, good: msgspec.structs.replace(good, merger=Seal("", "")),
    "signed by a worker": by(factories.worker_signer("w-1", "eu")),
    "signed by an operator": by(factories.operator_signer()),
    "signed by a merger of a region's CA": by(factories.signer("eu", Role.MERGER, "m-1")),
    "signed for another task": for_another_task,
    "signed over other keys": keys_changed,
}


def test_a_merger_signs_what_it_makes_and_others_derive_it_to_the_same_bytes(
    federation: SmallFederation,
) -> None:
    data = federation.objects.manifest_bytes(1)
    manifest = decode_manifest(data)
    assert manifest.format == manifest_v2.FORMAT
    signer = require_sealed(manifest, federation.genesis.trust)
    assert signer is not None
    assert (signer.role, signer.region) == (Role.MERGER, "control")
    assert held(federation, data).version.manifest_sha256 == sha256_hex(data)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_no_merger_of_the_task_signed_is_no_version(
    federation: SmallFederation, forge: Callable[[SmallFederation, Manifest], Manifest]
) -> None:
    forged = forge(federation, federation.objects.manifest(1))
    with pytest.raises(IntegrityProblem, match="FLV-4104"):
        require_sealed(forged, federation.genesis.trust)
    with pytest.raises(IntegrityProblem, match="FLV-3305"):
        held(federation, forged.canonical())
    federation.objects.store.put(manifest_key(federation.task, 1), forged.canonical())
    report = audit_task(federation.settings, federation.task_file, last=1, sources=federation.sources)
    assert any(one.error_id == "FLV-5003" for one in report.findings)
    assert any("signed by no merger" in one or "format" in one for one in violations(federation))


def violations(federation: SmallFederation) -> list[str]:
    """What the independent checker says of it."""
    logs = {}
    for topic in topics_of(federation.task, federation.partitions):
        for partition in range(topic.partitions):
            records = federation.records(topic.name, partition)
            logs[topic.name, partition] = [
                (one.offset, one.timestamp_ms, one.key, one.value) for one in records
            ]
    store = federation.objects.store
    objects = {key: store.get(key) for key in store.list(f"{federation.task}/")}
    report = check_logs(
        logs, objects, federation.task, federation.genesis.sha256, (), drained=False, clock_skew_ms=None
    )
    return [one.message for one in report.violations if one.invariant == 2]


def test_a_certificate_that_was_not_valid_when_the_version_was_announced_is_a_finding(
    federation: SmallFederation,
) -> None:
    assert violations(federation) == []
    good = federation.objects.manifest(1)
    expired = sealed(
        good, factories.signer("control", Role.MERGER, "m-1", **EXPIRED).of_task(federation.genesis.domain)
    )
    assert require_sealed(expired, federation.genesis.trust) is not None
    with pytest.raises(IntegrityProblem, match="not valid now"):
        held(federation, expired.canonical())
    federation.objects.store.put(manifest_key(federation.task, 1), expired.canonical())
    report = audit_task(federation.settings, federation.task_file, last=1, sources=federation.sources)
    assert any(one.field == "merger" for one in report.findings)
    assert any("was not valid" in one for one in violations(federation))


def test_tasks_of_before_have_manifests_that_nobody_signs() -> None:
    federation = SmallFederation(partitions={"eu": 1}, document_format=genesis_v4.FORMAT)
    federation.rounds(1)
    manifest = federation.objects.manifest(1)
    assert (manifest.format, manifest.merger) == (manifest_v1.FORMAT, None)
    assert require_sealed(manifest, federation.genesis.trust) is None
    signed = msgspec.structs.replace(manifest, format=manifest_v2.FORMAT, merger=Seal("", ""))
    with pytest.raises(IntegrityProblem, match="FLV-4104"):
        require_sealed(signed, federation.genesis.trust)


def test_nobody_hands_on_a_model_whose_manifest_no_merger_of_the_task_signed(
    federation: SmallFederation,
) -> None:
    """A manifest of the format before, of anybody who may write the store, under the next number or an old one."""
    good = federation.objects.manifest(1)
    whole = federation.objects.model_bytes(1, good.model_sha256)
    evil = encode_model(np.full(federation.layout.parameters, 666.0, np.float32), federation.layout)
    bases = Bases(federation.objects, federation.genesis)
    unsigned = {"merger": None, "format": manifest_v1.FORMAT}
    for number, changed in ((2, {**unsigned, "version": 2}), (1, unsigned), (2, {})):
        planted = msgspec.structs.replace(good, model_sha256=sha256_hex(evil), **changed)
        federation.objects.store.put(manifest_key(federation.task, number), planted.canonical())
        federation.objects.store.put(model_key(federation.task, number), evil)
        with pytest.raises(IntegrityProblem) as caught:
            federation.objects.signed_manifest(number, federation.genesis.trust)
        assert caught.value.error_id == "FLV-4104"
        child = msgspec.structs.replace(
            federation.genesis,
            parent=Parent(
                federation.task, federation.genesis.sha256, number, sha256_hex(planted.canonical())
            ),
            model_sha256=planted.model_sha256,
        )
        findings = Findings()
        assert "signed by no merger" in check_parent(federation.objects, child, findings)
        assert findings.total == 1
    federation.objects.store.put(manifest_key(federation.task, 1), good.canonical())
    federation.objects.store.put(model_key(federation.task, 1), whole)
    assert bases.at(1).sha256 == good.model_sha256


def test_an_old_announcement_that_stands_there_again_hides_no_newer_one(federation: SmallFederation) -> None:
    for _ in range(3):
        federation.rounds(1)
    topic = models_topic(federation.task)
    with federation.open_reader("old") as reader:
        first = next(reader.read(topic, 0, 0, 1))
    for _ in range(40):
        federation.writer.append_now(topic, first.value or b"", key=b"anybody", partition=0)
    with federation.open_reader("announced") as reader:
        found = announced_manifests(
            reader, federation.genesis.trust, federation.task, federation.genesis.regions
        )
    assert max(found) == 4 and len(found) >= 4
