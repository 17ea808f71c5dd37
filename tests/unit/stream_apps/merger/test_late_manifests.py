"""A manifest that says other lateness than there was is made by no merger; and windows that lie of what is usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from aggregation.errors import IntegrityProblem
from aggregation.merges import MERGES
from fluvial.proof.audit.run import audit_task
from fluvial.proof.checker import check_logs
from schemas import avro
from schemas.envelope import open_envelope
from schemas.manifest_inputs import usual_of
from schemas.manifest_seals import sealed
from schemas.manifests import Manifest, Pools, decode_manifest
from schemas.objects import manifest_key, model_key, optimizer_key, sha256_hex
from schemas.topics import aggregates_topic
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.fitting import histograms_fit
from stream_apps.merger.holding import Held, Holding
from stream_apps.merger.policies import Policies
from stream_apps.merger.version import version_of
from stream_apps.merger.windows import Windows
from tests import factories
from tests.small_federation import IN_MEMORY, SmallFederation
from tests.unit.fluvial.proof.checked_copy import copy_of
from tests.unit.stream_apps.merger.test_late_windows import after_an_outage, require_true, rules
from tests.unit.stream_apps.merger.test_signed_manifests import context_of

Spoil = Callable[[Manifest], Manifest]


def outage(**sections: Any) -> SmallFederation:
    one = rules(**({"staleness": {"versions_max": 5}} | sections))
    return after_an_outage(one, layout=factories.BUFFERED)


BUCKETS: list[dict[str, Any]] = [
    {},
    *(
        {"format": "fluvial/policy/v4", "merge": {"kind": kind, "buckets": 3}}
        for kind, merge in MERGES.items()
        if merge.robust
    ),
]
"""Sections of the policy: with one bucket, and with several."""


@pytest.fixture(scope="module")
def federation() -> SmallFederation:
    """Its last version holds fresh, late and dropped windows; the tests leave it as it is."""
    made = outage()
    manifest = made.manifests[-1]
    assert manifest.dropped and len({one.weight for one in manifest.inputs}) > 2
    return made


def of_input(*, dropped: bool = False, **changed: Any) -> Spoil:
    """Other keys of a window that is late and counts, or of one that was dropped."""

    def spoil(good: Manifest) -> Manifest:
        inputs = list(good.inputs)
        at = next(i for i, one in enumerate(inputs) if one.weight < 65536 and one.is_dropped == dropped)
        values = {key: value(getattr(inputs[at], key)) for key, value in changed.items()}
        inputs[at] = msgspec.structs.replace(inputs[at], **values)
        return msgspec.structs.replace(good, inputs=tuple(inputs))

    return spoil


def with_(**changed: Callable[[Any], Any]) -> Spoil:
    return lambda good: msgspec.structs.replace(
        good, **{key: value(getattr(good, key)) for key, value in changed.items()}
    )


def as_before(good: Manifest) -> Manifest:
    """What a merger of before would write."""
    inputs = [msgspec.structs.replace(one, version=-1, weight_total=0, weight=65536) for one in good.inputs]
    return msgspec.structs.replace(
        good, inputs=tuple(inputs), dropped=0, usual=Pools(), guide_sha256="", format="fluvial/manifest/v2"
    )


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a late window counted whole": (of_input(weight=lambda _: 65536), "weight"),
    "a late window dropped": (of_input(weight=lambda _: 0), "weight"),
    "a dropped window counted": (of_input(dropped=True, weight=lambda _: 1), "weight"),
    "a late window called fresh": (of_input(version=lambda one: one + 1), "version"),
    "a window of other weight": (of_input(weight_total=lambda one: one + 1), "weight_total"),
    "another weight in all": (with_(weight_total=lambda one: one + 1), "weight_total"),
    "dropped updates as accepted ones": (with_(accepted=lambda one: one + 1), "accepted"),
    "fewer dropped updates": (with_(dropped=lambda one: one - 1), "dropped"),
    "nothing usual": (with_(usual=lambda _: Pools()), "usual"),
    "something else usual": (
        with_(usual=lambda one: msgspec.structs.replace(one, shares=((255, 1),))),
        "usual",
    ),
    "the format of before": (as_before, "format"),
}


def held(federation: SmallFederation, data: bytes) -> Held:
    """As another merger holds the newest version, whose parent it has."""
    context = context_of(federation)
    before = federation.objects.manifest_bytes(federation.version - 1)
    named = decode_manifest(before)
    checkpoint = federation.objects.checkpoint(
        named.version, named.model_sha256, named.optimizer_sha256, federation.layout
    )
    parent = version_of(named, sha256_hex(before), checkpoint)
    return Holding(context, Policies(context)).hold(data, parent, Windows(context, parent.cursors))


def test_another_merger_derives_a_version_with_late_windows_to_the_same_bytes(
    federation: SmallFederation,
) -> None:
    data = federation.objects.manifest_bytes(federation.version)
    found = held(federation, data)
    assert found.version.manifest_sha256 == sha256_hex(data)
    assert found.version.pools.shares and found.version.pools.norms
    require_true(federation)


@pytest.mark.parametrize(("spoil", "field"), SPOILT.values(), ids=SPOILT)
def test_a_manifest_with_other_lateness_is_made_by_no_merger(
    federation: SmallFederation, spoil: Spoil, field: str
) -> None:
    newest = federation.version
    good = federation.objects.manifest(newest)
    by = factories.merger_signer().of_task(federation.genesis.domain)
    forged = sealed(spoil(msgspec.structs.replace(good, merger=None)), by)
    with pytest.raises(IntegrityProblem, match="FLV-3305"):
        held(federation, forged.canonical())
    key, data = manifest_key(federation.task, newest), federation.objects.manifest_bytes(newest)
    federation.objects.store.put(key, forged.canonical())
    try:
        report = audit_task(IN_MEMORY, federation.task_file, jobs=1, sources=federation.sources)
        copy = copy_of(federation)
    finally:
        federation.objects.store.put(key, data)
    assert any(one.where == key and field in one.field for one in report.findings)
    found = check_logs(
        copy.logs, copy.objects, copy.task, copy.genesis_sha256, drained=False, clock_skew_ms=None
    )
    said = [
        one.message for one in found.violations if one.message.startswith(f"manifest of version {newest}")
    ]
    assert any(field in one or "its policy does not make" in one for one in said), said


@pytest.mark.parametrize("sections", BUCKETS, ids=["mean", *(one["merge"]["kind"] for one in BUCKETS[1:])])
def test_a_version_whose_files_are_gone_is_derived_again_with_its_lateness(sections: dict[str, Any]) -> None:
    federation = outage(**sections)
    newest, store = federation.version, federation.objects.store
    keys = [key(federation.task, newest) for key in (model_key, optimizer_key)]
    before = [store.get(key) for key in keys]
    for key in keys:
        store.put(key, b"gone")
    context = context_of(federation)
    adopting = Adopting(context, Policies(context))
    adopting.begin()
    assert adopting.vouched(adopting.genesis()).number == newest
    assert [store.get(key) for key in keys] == before


BARRIER_FIELDS: dict[str, Any] = {
    "usual_norm": 1e9,
    "usual_cosine": 64,
    "usual_share": 99,
    "guide_sha256": "ab" * 32,
}


@pytest.mark.parametrize("field", BARRIER_FIELDS)
def test_a_barrier_that_says_something_else_is_usual_is_found(field: str) -> None:
    federation = SmallFederation(policy=rules(), partitions={"eu": 1})
    federation.rounds(2)
    manifest = federation.manifests[-1]
    usual = usual_of(manifest)
    assert usual.norm > 0.0 and usual.share == 1
    said = {"usual_norm": usual.norm, "usual_cosine": 0, "usual_share": 1, "guide_sha256": ""}
    said |= {"reference_sha256": manifest.reference_sha256}
    federation.tell(**said)
    require_true(federation)
    federation.tell(**said | {field: BARRIER_FIELDS[field]})
    report = audit_task(IN_MEMORY, federation.task_file, jobs=1, sources=federation.sources)
    assert {one.field for one in report.findings} == {field if field == "guide_sha256" else "usual"}
    copy = copy_of(federation)
    found = check_logs(
        copy.logs, copy.objects, copy.task, copy.genesis_sha256, drained=False, clock_skew_ms=None
    )
    assert any(field in one.message for one in found.violations)


def test_a_barrier_that_does_not_say_what_is_usual_is_found() -> None:
    federation = SmallFederation(policy=rules(), partitions={"eu": 1})
    federation.rounds(1)
    federation.tell()
    copy = copy_of(federation)
    found = check_logs(
        copy.logs, copy.objects, copy.task, copy.genesis_sha256, drained=False, clock_skew_ms=None
    )
    assert any("does not say what is usual" in one.message for one in found.violations)


# -- windows that lie


def bucket(at: int, count: int) -> dict[str, int]:
    return {"bucket": at, "count": count}


ABSURD: dict[str, dict[str, Any]] = {
    "counts below 0": {"norms": [bucket(8200, -840)]},
    "counts of nothing": {"norms": [bucket(8200, 0)]},
    "less than one update": {"norms": [bucket(8200, 104)]},
    "more norms than updates": {"norms": [bucket(8200, 4 * 840)]},
    "more norms than int64 adds": {"norms": [bucket(8200, (1 << 63) - 1), bucket(8201, (1 << 63) - 1)]},
    "a norm that no float has": {"norms": [bucket(1 << 14, 840)]},
    "a norm below 0": {"norms": [bucket(-1, 840)]},
    "buckets that do not ascend": {"norms": [bucket(8201, 840), bucket(8200, 840)]},
    "one bucket twice": {"norms": [bucket(8200, 840), bucket(8200, 840)]},
    "more buckets than updates": {"norms": [bucket(8200 + n, 105) for n in range(600)]},
    "a cosine above 1": {"cosines": [bucket(65, 840)]},
    "more cosines than updates": {"cosines": [bucket(1, 2 * 840), bucket(2, 2 * 840)]},
    "norms of nobody": {"shares": []},
    "a share of nobody": {"shares": [bucket(0, 840)]},
    "a share of hundreds": {"shares": [bucket(256, 105)]},
    "a part of a device": {"shares": [bucket(1, 839)]},
    "more devices than updates": {"shares": [bucket(1, 840 * 3), bucket(8, 105)]},
}


@pytest.mark.parametrize("changed", ABSURD.values(), ids=ABSURD)
def test_absurd_histograms_are_a_lie_and_the_honest_window_counts(changed: dict[str, Any]) -> None:
    federation = SmallFederation(policy=rules(), partitions={"eu": 1})
    federation.send()
    federation.close_windows()
    federation.fold()
    topic = aggregates_topic(federation.task, "eu")
    (honest,) = federation.records(topic, 0)
    record = open_envelope(honest.value or b"").record
    assert record["accepted"] == 3 and record["norms"] and record["shares"]
    windows = Windows(context_of(federation), {("eu", 0): 0})
    thief = federation.signer(factories.worker_signer("thief", "eu"))
    lie = thief.sign_payload("RegionalAggregate", avro.encode("RegionalAggregate", record | changed))
    for offset, value in enumerate((lie, honest.value)):
        windows.offer(record_like(honest, offset, value), "eu")
    (taken,) = windows.pending.waiting()
    assert taken.sha256 == sha256_hex(open_envelope(honest.value or b"").payload)
    assert list(windows.judging.barred.values()) == ["thief"]
    assert histograms_fit(taken.histograms, taken.accepted)


def record_like(like: Any, offset: int, value: bytes | None) -> Any:
    return type(like)(like.topic, like.partition, offset, like.timestamp_ms, like.key, value)


def test_a_window_without_histograms_is_folded_again_before_it_is_merged() -> None:
    """It stands alone, so it is taken on its worker's word; the policy in force says that it has to have some."""
    honest = SmallFederation(policy=rules(), partitions={"eu": 1})
    federation = SmallFederation(policy=rules(), partitions={"eu": 1})
    for one in (honest, federation):
        one.send()
    honest.close_windows()
    honest.fold()
    topic = aggregates_topic(honest.task, "eu")
    record = open_envelope(honest.records(topic, 0)[0].value or b"").record
    plain = {key: value for key, value in record.items() if key not in {"norms", "cosines", "shares"}}
    federation.append("eu", 0, honest.records(f"fl.{honest.task}.updates.eu", 0)[-1].value)
    federation.publish_payload("eu", 0, avro.encode("RegionalAggregate", plain))
    with pytest.raises(AssertionError, match="no update waits"):
        federation.merge()  # it is held against its log, which gives another
    federation.fold()
    manifest = federation.merge()
    assert [one.sha256 for one in manifest.inputs] == [
        sha256_hex(open_envelope(federation.records(topic, 0)[-1].value or b"").payload)
    ]
    assert manifest.usual.norms
    report = audit_task(IN_MEMORY, federation.task_file, jobs=1, sources=federation.sources)
    assert [(one.what, one.field) for one in report.findings] == [("aggregate 0 of eu[0]", "histograms")]
