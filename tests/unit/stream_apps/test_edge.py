"""An edge's links: what goes up and comes down is there once and in order, after crashes too; the audit walks down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.edges import EdgesAsked
from fluvial.proof.audit.report import AuditReport
from fluvial.reading.lineage import lineage_of
from fluvial.reading.task_view import TaskView
from schemas.envelope import kind_of
from schemas.objects import sha256_hex
from schemas.records import Announcement, announcement_in
from schemas.topics import edge_models_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from stream_apps.edge.app import require_edge
from stream_apps.edge.downlink import run_in_thread
from stream_apps.edge.progress import Progress
from tests.edged import EdgedFederation
from tests.factories import devices, edge_policy, edge_signer, operator_signer, revoke_bytes
from tests.small_federation import IN_MEMORY

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader

RULES = edge_policy(window={"updates_max": 4})
DEEP = ("eu.e1", "eu.e1.hall")


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., EdgedFederation]:
    def make(*edges: str) -> EdgedFederation:
        return EdgedFederation(policy=RULES, edges=edges or ("eu.e1",), folder=tmp_path / "edges")

    return make


def audit(federation: EdgedFederation, *, demanded: bool = False) -> AuditReport:
    return audit_task(
        IN_MEMORY,
        federation.task_file,
        jobs=1,
        sources=federation.sources,
        edges=EdgesAsked(demanded=demanded),
    )


def kinds(federation: EdgedFederation, region: str, kind: str) -> list[bytes]:
    found: list[bytes] = []
    for partition in range(federation.partitions.get(region, 1)):
        for record in federation.records(updates_topic(federation.task, region), partition):
            found += [record.value or b""]
    return [value for value in found if kind_of(value) == kind]


def test_updates_below_an_edge_are_in_the_version(made: Callable[..., EdgedFederation]) -> None:
    federation = made()
    federation.round()
    federation.round()
    updates = [one.accepted for one in federation.manifests]
    assert updates == [9, 9]
    report = audit(federation, demanded=True)
    assert report.identical, [str(one) for one in report.findings]
    assert [one.slot for one in report.edges.partitions] == [("eu.e1", 0)]
    assert report.document()["edges"][0]["updates"] == 6


def test_an_edge_below_an_edge_is_walked_too(made: Callable[..., EdgedFederation]) -> None:
    federation = made(*DEEP)
    federation.round()
    federation.round()
    report = audit(federation, demanded=True)
    assert report.identical, [str(one) for one in report.findings]
    assert [one.slot[0] for one in report.edges.partitions] == list(DEEP)
    assert [one.accepted for one in federation.manifests] == [12, 12]


@pytest.mark.parametrize("lost", [False, True], ids=["with its notes", "with another disk"])
def test_a_fresh_process_sends_and_copies_nothing_twice(
    made: Callable[..., EdgedFederation], *, lost: bool
) -> None:
    federation = made()
    federation.round()
    edge = federation.running["eu.e1"]
    up, down = kinds(federation, "eu", "EdgeAggregate"), kinds(federation, "eu.e1", "Barrier")
    assert up and len(down) == 1
    if lost:
        edge.forget()
    edge.start()
    edge.work()
    assert kinds(federation, "eu", "EdgeAggregate") == up
    assert kinds(federation, "eu.e1", "Barrier") == down
    federation.round()
    assert audit(federation, demanded=True).identical
    assert len(kinds(federation, "eu.e1", "Barrier")) == 2


def test_what_was_sent_and_not_noted_is_not_sent_again(made: Callable[..., EdgedFederation]) -> None:
    """As when it dies between the acknowledgement and the note: an older note is there."""
    federation = made()
    edge = federation.running["eu.e1"]
    notes = {path: path.read_bytes() for path in edge.folder.iterdir()}
    federation.round()
    before = kinds(federation, "eu", "EdgeAggregate")
    for path in list(edge.folder.iterdir()):
        path.unlink()
    for path, data in notes.items():
        path.write_bytes(data)
    edge.start()
    edge.work()
    assert kinds(federation, "eu", "EdgeAggregate") == before


def test_copies_are_byte_for_byte_and_in_order(made: Callable[..., EdgedFederation]) -> None:
    federation = made()
    for _ in range(3):
        federation.round()
    (partition,) = [
        p
        for p in range(federation.partitions["eu"])
        if any(
            kind_of(record.value or b"") == "EdgeAggregate"
            for record in federation.records(updates_topic(federation.task, "eu"), p)
        )
    ]
    above = [
        record.value
        for record in federation.records(updates_topic(federation.task, "eu"), partition)
        if kind_of(record.value or b"") == "Barrier"
    ]
    assert kinds(federation, "eu.e1", "Barrier") == above
    told = [
        announcement_in(record.value, record.timestamp_ms, federation.trust)
        for record in federation.records(edge_models_topic(federation.task, "eu.e1"), 0)
    ]
    assert [(one.region, one.version) for one in told if isinstance(one, Announcement)] == [
        ("eu", version) for version in range(4)
    ]


def test_what_a_stranger_writes_above_does_not_come_down(made: Callable[..., EdgedFederation]) -> None:
    federation = made()
    for partition in range(2):
        federation.append("eu", partition, revoke_bytes("d-9", by=federation.signer(edge_signer("eu.e9"))))
        federation.append("eu", partition, b"\xc3\x01Barrier")
    federation.running["eu.e1"].work()
    assert kinds(federation, "eu.e1", "Revoke") == []


def test_a_revoke_comes_down_and_is_obeyed(made: Callable[..., EdgedFederation]) -> None:
    federation = made()
    revoke = revoke_bytes("d-0001", by=federation.signer(operator_signer()))
    for partition in range(2):
        federation.append("eu", partition, revoke)
    federation.round()
    assert kinds(federation, "eu.e1", "Revoke") == [revoke]
    assert federation.running["eu.e1"].worker.partitions[0].state.revoked == {"d-0001"}
    assert audit(federation).identical


def test_a_window_that_the_edges_log_does_not_give_is_named(made: Callable[..., EdgedFederation]) -> None:
    """Whoever has the edge's key signs what it likes: it counts above, and the walk down finds it."""
    federation = made()
    lying = federation.running["eu.e1"]
    honest = lying.uplink.publish
    federation.send_below("eu.e1", *devices(3), seed=5)

    def lie(closed: object, encoded: object, bytes_max: int) -> None:
        from dataclasses import replace

        import numpy as np

        from schemas.edges import edge_record

        window = encoded.aggregate  # type: ignore[attr-defined]
        sums = np.zeros(federation.layout.sum_elements, dtype=np.int64)
        payload = _with_sums(encoded.payload, sums)  # type: ignore[attr-defined]
        record = edge_record(replace(window), payload, closed.model_sha256, sums)  # type: ignore[attr-defined]
        value = federation.signer(edge_signer()).sign("EdgeAggregate", record)
        place = lying.uplink._stand
        federation.writer.append_now(place.parent_updates, value, partition=place.parent_partition)

    lying.uplink.publish = lie  # type: ignore[method-assign]
    federation.send(2, seed=77)
    federation.settle_edges()
    federation.fold()
    federation.merge()
    assert honest is not None
    report = audit(federation, demanded=True)
    assert not report.identical
    (finding,) = [one for one in report.findings if one.error_id == "FLV-5024"]
    assert finding.what == "window 0 of edge eu.e1"


def _with_sums(payload: bytes, sums: object) -> bytes:
    from schemas import avro
    from schemas.checkpoints import encode_sums

    _, record = avro.decode(payload)
    return avro.encode(
        "RegionalAggregate",
        record | {"sum_sha256": sha256_hex(encode_sums(sums))},  # type: ignore[arg-type]
    )


def test_a_revoke_that_an_edge_held_back_is_named(made: Callable[..., EdgedFederation]) -> None:
    federation = made()
    revoke = revoke_bytes("d-0001", by=federation.signer(operator_signer()))
    for partition in range(2):
        federation.append("eu", partition, revoke)
    edge = federation.running["eu.e1"]
    edge.downlink._log._standing.add(sha256_hex(revoke))  # as if it stood there
    federation.round()
    federation.round()
    report = audit(federation, demanded=True)
    assert [one.error_id for one in report.findings] == ["FLV-5025"]


def test_an_edge_whose_log_is_gone_is_said_and_found_where_it_is_demanded(
    made: Callable[..., EdgedFederation],
) -> None:
    federation = made()
    federation.round()
    federation.edges = ()
    sources = federation.spoiled(lambda record: record.value)
    for demanded, findings in ((False, []), (True, ["FLV-5027"])):
        report = audit_task(
            IN_MEMORY,
            federation.task_file,
            jobs=1,
            sources=sources,
            edges=EdgesAsked(demanded=demanded),
        )
        assert [one.edge for one in report.edges.left] == ["eu.e1"]
        assert [one.error_id for one in report.findings] == findings


def test_names_that_are_no_edges_are_refused(made: Callable[..., EdgedFederation]) -> None:
    genesis = made().genesis
    require_edge(genesis, "eu.e1.hall")
    for name in ("eu", "asia.e1", "e1", ""):
        with pytest.raises(UsageProblem, match="FLV-6460"):
            require_edge(genesis, name)


def test_what_was_refused_above_is_sent_again_by_a_fresh_process(
    made: Callable[..., EdgedFederation],
) -> None:
    """As after a certificate that ended: the chain stood still, and all that follows was refused."""
    federation = made()
    edge = federation.running["eu.e1"]
    good = edge.uplink._signer
    edge.uplink._signer = federation.signer(edge_signer("eu.e1", "old", secret="another CA"))
    federation.send_below("eu.e1", *devices(2), seed=5)
    edge.close()
    edge.uplink._signer = good
    federation.send_below("eu.e1", *devices(2, start=20), seed=50)
    edge.close()
    federation.fold()
    outcomes = [one.outcome for one in verdicts_above(federation)]
    assert outcomes == ["bad_certificate", "bad_aggregate"]
    edge.start()
    federation.settle_edges()
    federation.fold()
    assert [one.outcome for one in verdicts_above(federation)][2:4] == ["aggregated", "aggregated"]
    federation.send(1)
    federation.round()
    assert audit(federation, demanded=True).identical


def verdicts_above(federation: EdgedFederation) -> list[Verdict]:
    """Those on windows of edges in the region's log."""
    found = []
    for partition in range(2):
        log = federation.records(updates_topic(federation.task, "eu"), partition)
        for record in federation.records(verdicts_topic(federation.task, "eu"), partition):
            verdict = decode_verdict(record.value or b"")
            if kind_of(log[verdict.offset].value or b"") == "EdgeAggregate":
                found.append(verdict)
    return found


def test_a_log_above_that_was_made_anew_is_read_from_its_beginning(
    made: Callable[..., EdgedFederation], tmp_path: Path
) -> None:
    federation = made()
    federation.round()
    notes = {path.name: path.read_bytes() for path in federation.running["eu.e1"].folder.iterdir()}
    anew = EdgedFederation(policy=RULES, folder=tmp_path / "anew", edges=("eu.e1",))
    edge = anew.running["eu.e1"]
    for name, data in notes.items():
        (edge.folder / name).write_bytes(data)
    edge.start()
    anew.round()
    anew.round()
    assert len(kinds(anew, "eu.e1", "Barrier")) == 2
    assert audit(anew, demanded=True).identical


@pytest.mark.parametrize("error", [OSError("no space left"), UsageProblem("FLV-3103", "no such topic")])
def test_whatever_ends_the_way_down_is_told(
    made: Callable[..., EdgedFederation], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A disk that is full would else leave an edge that hears of no version any more, and says nothing."""

    def full(*_: object, **__: object) -> None:
        raise error

    federation = made()
    edge = federation.running["eu.e1"]
    monkeypatch.setattr(Progress, "save", full)
    told: list[Exception] = []
    run_in_thread(edge.downlink, threading.Event(), told.append).join(timeout=60.0)
    assert told == [error]


@pytest.mark.parametrize("refold", [False, True])
def test_a_lineage_counts_the_updates_below_edges(
    made: Callable[..., EdgedFederation], *, refold: bool
) -> None:
    federation = made()
    federation.round()
    reader = cast("LogReader", federation.open_reader("reading"))
    view = TaskView(IN_MEMORY, federation.task_file, federation.objects, federation.genesis, reader)
    found = lineage_of(view, 1, refold=refold)
    assert found.problems == ()
    assert sum(tile.updates for tile in found.tiles) == found.manifest.accepted == 9
    assert [one.device_id for tile in found.tiles for one in tile.edges] == ["eu.e1"]
    assert sum(len(tile["edges"]) for tile in found.document()["inputs"]) == 1
