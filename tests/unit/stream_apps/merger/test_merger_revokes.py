"""What an operator's Revoke in the models topic does to mergers, devices, audit and checker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.strays import REVOKED
from producers.sdk.announcements import Announcements
from schemas import avro
from schemas.announcing import Announcers
from schemas.envelope import KeyPair, open_envelope
from schemas.manifest_seals import sealed
from schemas.records import Announcement, Flaw, Unverified
from schemas.topics import aggregates_topic, models_topic
from stream_apps.merger.announced import Announced, announced_manifests
from stream_apps.merger.merger import REVOKES_EVERY_S, Merger
from stream_apps.process_context import ProcessContext
from tests import factories
from tests.factories import merger_signer, operator_signer, revoke_bytes, worker_signer
from tests.small_federation import SmallFederation, on_mock_cluster
from tests.unit.fluvial.proof.checked_copy import copy_of
from tests.unit.stream_apps.merger.test_merger_judging import Site
from tests.unit.stream_apps.test_revocation import serial

if TYPE_CHECKING:
    from pathlib import Path

PARTITIONS = {"eu": 1}
STOLEN, OTHER = merger_signer("stolen"), merger_signer("m-2")


def federation_of(versions: int = 0, **options: Any) -> SmallFederation:
    federation = SmallFederation(partitions=PARTITIONS, **options)
    federation.rounds(versions)
    return federation


def revoke(federation: SmallFederation, of: KeyPair, *, by: KeyPair | None = None) -> None:
    """As ``fluvial revoke`` writes it, into the models topic alone."""
    signer = federation.signer(by or operator_signer())
    value = revoke_bytes("", serial(of), by=signer, task=federation.task)
    federation.writer.append_now(models_topic(federation.task), value, partition=0)


def announce(federation: SmallFederation, version: int, by: KeyPair, manifest: str = "evil") -> None:
    fields = {
        "task": federation.task,
        "region": "eu",
        "version": version,
        "manifest_sha256": factories.sha(manifest),
        "model_sha256": factories.sha("model"),
        "policy_sha256": federation.policy.sha256,
    }
    value = federation.signer(by).sign("ModelAnnouncement", fields)
    federation.writer.append_now(models_topic(federation.task), value, partition=0)


def merger_of(federation: SmallFederation, key_pair: KeyPair = OTHER) -> Merger:
    return Merger(
        ProcessContext.of(
            genesis=federation.genesis,
            store=federation.objects,
            writer=federation.writer,
            key_pair=key_pair,
            name="m-2",
            open_reader=federation.open_reader,
            clock=federation.clock,
        )
    )


def manifests(federation: SmallFederation) -> dict[int, str]:
    with federation.open_reader("announced") as reader:
        return announced_manifests(reader, federation.trust, federation.task, federation.genesis.regions)


def test_what_a_certificate_announced_before_its_revoke_stands_and_what_comes_behind_is_nobodys() -> None:
    federation = federation_of()
    announce(federation, 1, STOLEN, "before")
    revoke(federation, STOLEN)
    announce(federation, 2, STOLEN)
    announce(federation, 3, OTHER, "honest")
    found = manifests(federation)
    assert (found[1], found[3]) == (factories.sha("before"), factories.sha("honest"))
    assert 2 not in found


@pytest.mark.parametrize("case", ["a revoked operator", "a merger", "another task", "a device's"])
def test_a_revoke_counts_only_if_an_operator_may_still_sign_it(case: str) -> None:
    federation = federation_of()
    stolen = operator_signer("op-9")
    signer = federation.signer(stolen if case == "a revoked operator" else operator_signer())
    if case == "a revoked operator":
        revoke(federation, stolen)
    if case == "a merger":
        signer = federation.signer(OTHER)
    value = revoke_bytes(
        serial(STOLEN) if case == "a device's" else "",
        "" if case == "a device's" else serial(STOLEN),
        by=signer,
        task="another" if case == "another task" else federation.task,
    )
    federation.writer.append_now(models_topic(federation.task), value, partition=0)
    announce(federation, 1, STOLEN, "good")
    assert manifests(federation)[1] == factories.sha("good")


def test_in_tasks_where_a_revoke_bars_devices_only_it_is_none_in_the_models_topic() -> None:
    federation = federation_of(document_format="fluvial/genesis/v4")
    announcers = Announcers(federation.trust, federation.task)
    value = revoke_bytes("", serial(STOLEN), by=federation.signer(operator_signer()))
    found = announcers.read(value, factories.NOW_MS)
    assert isinstance(found, Unverified) and found.flaw is Flaw.WRONG_KIND
    assert not announcers.revoked


def test_a_revoke_is_heard_behind_more_announcements_than_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_apps.merger.announced.RECORDS_MAX", 4)
    federation = federation_of()
    revoke(federation, STOLEN)
    for version in range(1, 9):
        announce(federation, version, OTHER if version < 8 else STOLEN, str(version))
    assert sorted(manifests(federation)) == [5, 6, 7]


def test_it_is_read_on_and_from_the_beginning_where_the_topic_was_made_anew() -> None:
    federation, anew = federation_of(), federation_of()
    announced = Announced(federation.trust, federation.task, federation.genesis.regions)
    for version in (1, 2, 3):
        announce(federation, version, OTHER)
        with federation.open_reader("announced") as reader:
            announced.read(reader)
        assert max(announced.manifests) == version
    announce(anew, 7, OTHER)
    with anew.open_reader("announced") as reader:
        announced.read(reader)
    assert max(announced.manifests) == 7


# -- windows


def test_a_window_of_a_revoked_certificate_does_not_count_alone() -> None:
    site = Site()
    site.windows.judging.bar({serial(worker_signer("thief", "eu"))})
    site.offer(site.lie(0), site.lie(0, by="w-1"))
    assert site.waiting() == [site.sha256(site.lie(0, by="w-1"))], (
        "another's word counts until it is disproved"
    )
    site.offer(*site.honest)
    site.expect_honest(3)


def test_a_window_of_a_revoked_certificate_that_is_what_its_log_gives_counts() -> None:
    site = Site()
    site.windows.judging.bar({serial(worker_signer("w-1", "eu"))})
    site.offer(*site.honest)
    site.expect_honest(3)
    assert site.told.disproved == []


def test_windows_that_no_version_holds_yet_are_folded_again_when_their_signer_is_revoked() -> None:
    site = Site()
    site.offer(site.lie(0))
    assert len(site.waiting()) == 1
    site.windows.judging.bar({serial(worker_signer("thief", "eu"))})
    assert site.waiting() == []


def test_a_merger_that_runs_hears_of_a_revoke_and_bars_the_worker() -> None:
    federation = federation_of(1)
    merger = merger_of(federation)
    merger.resume()
    thief = worker_signer("thief", "eu")
    federation.send(3)
    federation.close_windows()
    federation.fold()
    topic = aggregates_topic(federation.task, "eu")
    honest = federation.records(topic, 0)[-1]
    lie = open_envelope(honest.value or b"").record | {"contributors_sha256": factories.sha("evil")}
    payload = avro.encode("RegionalAggregate", lie)
    value = federation.signer(thief).sign_payload("RegionalAggregate", payload)
    for record in federation.records(topic, 0)[:-1]:
        merger.offer(record, "eu")
    merger.offer(replace(honest, value=value), "eu")
    assert merger.pending.waiting()[-1].contributors_sha256 == factories.sha("evil")
    revoke(federation, thief)
    federation.clock.sleep(REVOKES_EVERY_S)
    merger.merge_if_due()
    assert all(one.contributors_sha256 != factories.sha("evil") for one in merger.pending.waiting())


# -- mergers


def test_a_manifest_that_nobody_announced_is_refused_where_its_merger_was_revoked() -> None:
    """Also where its windows give it: whoever holds a stolen key says what it likes of which windows go into it."""
    federation = federation_of(1)
    merger = merger_of(federation)
    merger.resume()
    federation.rounds(1)
    honest = federation.objects.manifest(2)
    stolen = sealed(msgspec.structs.replace(honest, merger=None), federation.signer(STOLEN))
    revoke(federation, STOLEN)
    merger._adopting.hear()
    holding = merger._adopting._holding
    with pytest.raises(IntegrityProblem, match=r"FLV-3305[\s\S]*was revoked"):
        holding.hold(stolen.canonical(), merger.head, merger._windows)
    assert holding.hold(honest.canonical(), merger.head, merger._windows).version.number == 2


def test_a_starting_merger_does_not_go_by_what_a_revoked_one_announced() -> None:
    federation = federation_of(2)
    revoke(federation, STOLEN)
    announce(federation, 9, STOLEN)
    merger = merger_of(federation)
    merger.resume()
    assert merger.head.number == 2


def test_a_merger_whose_own_certificate_is_revoked_ends_and_says_so() -> None:
    federation = federation_of(1)
    merger = merger_of(federation)
    merger.resume()
    revoke(federation, OTHER)
    federation.clock.sleep(REVOKES_EVERY_S)
    with pytest.raises(UsageProblem, match="FLV-3203") as ended:
        merger.merge_if_due()
    assert serial(OTHER) in str(ended.value)
    with pytest.raises(UsageProblem, match="FLV-3203"):
        merger_of(federation).resume()


def test_a_merger_that_runs_tells_again_of_the_head_where_the_one_that_told_of_it_was_revoked() -> None:
    federation = federation_of(1)
    merger = merger_of(federation)
    merger.resume()
    revoke(federation, merger_signer())
    before = len(federation.records(models_topic(federation.task), 0))
    federation.clock.sleep(REVOKES_EVERY_S)
    merger.merge_if_due()
    told = federation.records(models_topic(federation.task), 0)[before:]
    announcers = Announcers(federation.trust, federation.task)
    said = [announcers.read(one.value, one.timestamp_ms) for one in told]
    assert [one.version for one in said if isinstance(one, Announcement)] == [1]


# -- devices


def test_a_device_goes_by_the_mergers_that_were_not_revoked(tmp_path: Path) -> None:
    with on_mock_cluster(tmp_path) as settings:
        federation = SmallFederation(settings, partitions=PARTITIONS)
        with Announcements(settings, federation.genesis) as news:
            announce(federation, 1, OTHER, "honest")
            announce(federation, 1_000_000, STOLEN)
            assert news.wait_for("eu", 1_000_000, 30).manifest_sha256 == factories.sha("evil")
            revoke(federation, STOLEN)
            announce(federation, 2_000_000, STOLEN)
            announce(federation, 2, OTHER, "honest too")
            while (latest := news.latest("eu")) is None or latest.version != 2:
                news.wait_for("eu", 1, 30)
        with Announcements(settings, federation.genesis) as late:
            assert late.wait_for("eu", 1, 30).manifest_sha256 == factories.sha("honest too")


# -- audit and checker


def test_audit_and_checker_count_what_revoked_certificates_sign_and_find_nothing() -> None:
    federation = federation_of(2)
    thief = worker_signer("thief", "eu")
    topic = aggregates_topic(federation.task, "eu")
    record = open_envelope(federation.records(topic, 0)[0].value or b"").record
    revoke(federation, STOLEN)
    revoke(federation, thief)
    announce(federation, 1, STOLEN)
    announce(federation, 9, STOLEN)
    for changed in ({}, {"sequence": 900}, {"next_offset": 10**6, "sequence": 901}):
        payload = avro.encode(
            "RegionalAggregate", record | {"contributors_sha256": factories.sha("evil")} | changed
        )
        value = federation.signer(thief).sign_payload("RegionalAggregate", payload)
        federation.writer.append_now(topic, value, partition=0)
    federation.fold()
    report = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert report.identical, report.findings.shown
    assert {name: one.kinds for name, one in report.strays_by_topic() if one.kinds} == {
        models_topic(federation.task): {REVOKED: 2},
        topic: {REVOKED: 3},
    }
    assert copy_of(federation).check(drained=False).violations == ()


def test_audit_and_checker_find_the_same_lies_where_the_revoke_stands_behind_them() -> None:
    federation = federation_of(2)
    announce(federation, 1, STOLEN)
    federation.clock.sleep(1)
    revoke(federation, STOLEN)
    report = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert not report.identical
    assert copy_of(federation).check(drained=False).violations != ()


def test_right_windows_of_a_revoked_certificate_are_published_windows() -> None:
    """An honest worker whose key was stolen goes on until it has another one."""
    federation = federation_of(1)
    revoke(federation, worker_signer("w-1", "eu"))
    federation.clock.sleep(1)
    federation.rounds(2)
    federation.fold()
    report = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert report.identical, report.findings.shown
    assert copy_of(federation).check(drained=True).violations == ()
