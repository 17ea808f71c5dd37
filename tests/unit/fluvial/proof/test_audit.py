"""The audit on librdkafka's test cluster and a file store: what it recomputes, and how it names every damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregation.errors import Finding, UsageProblem
from backends.settings import Settings
from fluvial.proof.audit import AuditReport, audit_task
from schemas import avro as codec
from schemas.certificates import Role
from schemas.envelope import open_envelope
from schemas.manifest_seals import sealed
from schemas.objects import manifest_key, model_key, object_key, optimizer_key
from schemas.topics import aggregates_topic
from tests import factories
from tests.small_federation import SmallFederation, on_mock_cluster


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFederation]:
    folder = tmp_path_factory.mktemp("audit")
    with on_mock_cluster(folder) as settings:
        federation = SmallFederation(settings)
        federation.append("eu", 0, b"garbage")
        federation.rounds(4)
        yield federation


@pytest.fixture
def copied(federation: SmallFederation, tmp_path: Path) -> Settings:
    """The same logs over a copy of the store, to damage."""
    store = msgspec.structs.replace(federation.settings.store, path=tmp_path / "objects")
    assert federation.settings.store.path is not None and store.path is not None
    shutil.copytree(federation.settings.store.path, store.path)
    return msgspec.structs.replace(federation.settings, store=store)


def audit(federation: SmallFederation, settings: Settings | None = None, **options: Any) -> AuditReport:
    """In one process unless ``jobs`` says otherwise, over ``settings``, else over what the federation stands on."""
    sources = None if settings or options.get("jobs", 1) > 1 else federation.sources
    return audit_task(
        settings or federation.settings, federation.task_file, sources=sources, **({"jobs": 1} | options)
    )


def flip(settings: Settings, key: str, *, at: int = -1) -> None:
    """Flip the lowest bit of one byte of an object."""
    assert settings.store.path is not None
    path = settings.store.path / key
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_an_untouched_task_is_identical(federation: SmallFederation) -> None:
    report = audit(federation)
    assert [str(one) for one in report.findings] == []
    assert report.identical and report.versions == 4
    # 4 rounds x 3 partitions x (3 updates, 1 tick, 1 barrier), and the garbage
    assert (report.records, report.updates, report.windows) == (61, 36, 12)
    assert report.announcements == 10


def test_a_task_with_buffers_audits_and_a_changed_buffer_is_found() -> None:
    federation = SmallFederation(layout=factories.BUFFERED)
    federation.rounds(3)
    assert audit(federation).identical
    key = model_key(federation.task, 2)
    data = bytearray(federation.objects.store.get(key))
    data[-1] ^= 1
    federation.objects.store.put(key, bytes(data))
    assert [one.what for one in audit(federation).findings] == ["model of version 2"]


def test_one_process_and_three_give_the_same_digest(federation: SmallFederation) -> None:
    alone, together = audit(federation), audit(federation, jobs=3)
    assert together.identical and together.jobs == 3
    assert alone.digest == together.digest
    expected = {k: v for k, v in alone.document().items() if k not in {"seconds", "jobs"}}
    assert {k: v for k, v in together.document().items() if k not in {"seconds", "jobs"}} == expected


def test_an_audit_from_a_version_folds_only_what_came_after_it(federation: SmallFederation) -> None:
    report = audit(federation, first=3)
    assert report.identical and report.versions == 2
    assert report.records < audit(federation).records
    assert report.document()["trusted_version"] == 2


def test_an_audit_to_a_version_stops_there_and_is_comparable(federation: SmallFederation) -> None:
    first = audit(federation, last=2)
    assert first.identical and first.versions == 2
    assert first.digest == audit(federation, last=2, jobs=2).digest != audit(federation).digest


def test_versions_that_do_not_exist_are_refused(federation: SmallFederation) -> None:
    wrongs: list[dict[str, Any]] = [{"last": 9}, {"first": 0}, {"first": 3, "last": 2}, {"jobs": 0}]
    for wrong in wrongs:
        with pytest.raises(UsageProblem) as caught:
            audit(federation, **wrong)
        assert caught.value.error_id == "FLV-5010"


def test_a_task_that_the_store_does_not_have_is_refused(federation: SmallFederation) -> None:
    file = msgspec.structs.replace(federation.task_file, task="other")
    with pytest.raises(UsageProblem) as caught:
        audit_task(federation.settings, file)
    assert caught.value.error_id == "FLV-5011"


def _sum(federation: SmallFederation) -> str:
    return object_key(federation.task, federation.manifests[1].inputs[0].sum_sha256)


def _state(federation: SmallFederation) -> str:
    """The state object of an aggregate that is neither the first nor the last."""
    report = audit(federation)
    return object_key(federation.task, report.partitions[1].aggregates[2].state_sha256)


DAMAGED: list[tuple[str, Callable[[SmallFederation], str], str, str]] = [
    ("a model", lambda f: model_key(f.task, 2), "FLV-5002", "model of version 2"),
    ("the head's model", lambda f: model_key(f.task, 4), "FLV-5002", "model of version 4"),
    ("the first model", lambda f: model_key(f.task, 0), "FLV-5002", "checkpoint of version 0"),
    ("an optimizer", lambda f: optimizer_key(f.task, 3), "FLV-5002", "optimizer of version 3"),
    ("a window's sums", _sum, "FLV-5002", "sum of aggregate 1 of eu[0]"),
    ("a state", _state, "FLV-5002", "state of aggregate 2 of eu[1]"),
    ("a manifest", lambda f: manifest_key(f.task, 2), "FLV-5003", "manifest of version 2"),
    ("the head's manifest", lambda f: manifest_key(f.task, 4), "FLV-5003", "manifest of version 4"),
    ("the genesis", lambda f: manifest_key(f.task, 0), "FLV-5007", "genesis document"),
]


@pytest.mark.parametrize(("what", "key_of", "error_id", "named"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_a_flipped_byte_is_found_and_named(
    federation: SmallFederation,
    copied: Settings,
    what: str,
    key_of: Callable[[SmallFederation], str],
    error_id: str,
    named: str,
) -> None:
    key = key_of(federation)
    flip(copied, key)
    report = audit(federation, copied)
    first = report.findings.shown[0]
    assert (first.error_id, first.what) == (error_id, named)
    assert key.startswith(first.where)
    with pytest.raises(Finding) as caught:
        report.require_identical()
    assert caught.value.error_id == "FLV-5001" and named in caught.value.message


def test_a_flipped_byte_in_a_sum_or_a_model_does_not_hide_the_rest(
    federation: SmallFederation, copied: Settings
) -> None:
    """Everything is recomputed from the logs, so one damaged object is one finding, and all versions are checked."""
    for key in (_sum(federation), model_key(federation.task, 2)):
        flip(copied, key)
    report = audit(federation, copied, jobs=2)
    assert report.findings.total == 2 and report.versions == 4
    assert report.digest == audit(federation).digest


def test_a_missing_object_is_named(federation: SmallFederation, copied: Settings) -> None:
    assert copied.store.path is not None
    keys = [_sum(federation), model_key(federation.task, 3)]
    for key in keys:
        (copied.store.path / key).unlink()
    assert [(one.where, one.got) for one in audit(federation, copied).findings] == [
        (key, "no object") for key in keys
    ]


def test_a_reference_that_a_barrier_names_is_checked(federation: SmallFederation, copied: Settings) -> None:
    key = object_key(federation.task, federation.manifests[0].reference_sha256)
    flip(copied, key)
    report = audit(federation, copied)
    assert report.findings.shown[0].error_id == "FLV-5006"
    assert key in report.findings.shown[0].got


def test_a_manifest_rewritten_with_another_decision_is_named_by_field(
    federation: SmallFederation, copied: Settings
) -> None:
    """A well-formed manifest, not a damaged one: the head's, so that no child's parent hash gives it away."""
    assert copied.store.path is not None
    forged = msgspec.structs.replace(
        federation.manifests[3], weight_total=federation.manifests[3].weight_total + 1
    )
    signed = sealed(forged, federation.signer(factories.merger_signer()))
    (copied.store.path / manifest_key(federation.task, 4)).write_bytes(signed.canonical())
    report = audit(federation, copied)
    assert (report.findings.shown[0].what, report.findings.shown[0].field) == (
        "manifest of version 4",
        "weight_total",
    )
    assert {one.field for one in report.findings if one.error_id == "FLV-5005"} == {"manifest_sha256"}


def test_a_manifest_that_claims_another_model_is_named(federation: SmallFederation, copied: Settings) -> None:
    assert copied.store.path is not None
    forged = msgspec.structs.replace(federation.manifests[1], model_sha256=factories.sha("another"))
    signed = sealed(forged, federation.signer(factories.merger_signer()))
    (copied.store.path / manifest_key(federation.task, 2)).write_bytes(signed.canonical())
    report = audit(federation, copied)
    found = [(one.what, one.field) for one in report.findings if one.error_id == "FLV-5003"]
    assert ("manifest of version 2", "model_sha256") in found
    assert found[0] == ("manifest of version 2, named by version 3 as its parent", "sha256")
    assert report.versions == 4


@pytest.fixture
def own() -> SmallFederation:
    """A small task of its own, in memory, whose logs a test may spoil."""
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(2)
    return federation


def test_an_aggregate_of_another_content_is_named_by_field(own: SmallFederation) -> None:
    """Signed by a real worker, of a sequence that exists: the divergence that only a refold can settle."""
    real = audit(own).partitions[0].aggregates[1]
    record = open_envelope(own.records("fl.digits.aggregates.eu", 0)[1].value or b"").record
    own.publish_payload(
        "eu", 0, codec.encode("RegionalAggregate", record | {"weight_total": real.weight_total + 1})
    )
    report = audit(own)
    only = report.findings.shown[0]
    assert report.findings.total == 1
    assert (only.error_id, only.what, only.field) == ("FLV-5004", "aggregate 1 of eu[0]", "weight_total")
    assert only.where == "fl.digits.aggregates.eu[0]@2"
    assert (only.expected, only.got) == (str(real.weight_total), str(real.weight_total + 1))


def test_an_identical_duplicate_is_no_finding_and_an_invented_window_is(own: SmallFederation) -> None:
    record = open_envelope(own.records("fl.digits.aggregates.eu", 0)[1].value or b"").record
    own.publish_payload("eu", 0, codec.encode("RegionalAggregate", record))
    assert audit(own).identical
    own.publish_payload("eu", 0, codec.encode("RegionalAggregate", record | {"sequence": 7}))
    report = audit(own)
    assert report.findings.shown[0].expected == "no such window in the log"


def test_what_strangers_write_among_windows_and_announcements_is_counted_apart(own: SmallFederation) -> None:
    """One byte in the models topic turned an audit red: whoever may write there could."""
    before = audit(own)
    windows, announced = own.records("fl.digits.aggregates.eu", 0), own.records("fl.digits.models", 0)
    forged = factories.signer("eu", Role.WORKER, "w-9", secret=" of another CA")
    payload = open_envelope(windows[0].value or b"").payload
    for topic in ("fl.digits.aggregates.eu", "fl.digits.models"):
        for value in (b"x", b"\xc3\x01 not ours", b"", forged.sign_payload("RegionalAggregate", payload)):
            own.writer.append_now(topic, value, partition=0)
    own.writer.append_now("fl.digits.models", windows[0].value or b"", partition=0)
    own.writer.append_now("fl.digits.aggregates.eu", announced[0].value or b"", partition=0)
    own.announce(1, task="another")
    report = audit(own)
    assert [str(one) for one in report.findings] == [] and report.announcements == before.announcements
    assert report.digest == before.digest
    assert {topic: one.kinds for topic, one in report.strays_by_topic()} == {
        "fl.digits.models": {"no_record": 5, "elsewhere": 1},
        "fl.digits.aggregates.eu": {"no_record": 4, "forged": 1},
    }
    (models, aggregates) = report.json_document()["strays"]
    assert models["written_by"] == "whoever may write to fl.digits.models"
    assert aggregates["first"][0] == f"fl.digits.aggregates.eu[0]@{len(windows)}"


def test_windows_that_are_not_published_yet_are_no_finding(own: SmallFederation) -> None:
    own.send(4)  # closes a window of four that no worker has published yet
    report = audit(own)
    assert report.identical and report.windows == 3 and report.records == 14


def test_a_window_that_was_left_out_in_the_middle_is_a_finding(own: SmallFederation) -> None:
    own.send(4)
    own.fold()
    own.send(4, seed=1000)  # the same devices again: refused, so a tick has to close the window
    own.fold()
    own.clock.sleep(3600.0)
    own.close_windows()
    own.fold()
    left_out = audit(own).partitions[0].aggregates[2]
    windows = own.records(aggregates_topic(own.task, "eu"), 0)
    assert len(windows) == 4
    gone = [object_key(own.task, sha256) for sha256 in (left_out.sum_sha256, left_out.state_sha256)]
    sources = own.spoiled(lambda record: None if record == windows[2] else record.value, without=gone)
    report = audit_task(own.settings, own.task_file, jobs=1, sources=sources)
    assert [(one.what, one.got) for one in report.findings] == [("aggregate 2 of eu[0]", "no record")] + [
        (f"{kind} of aggregate 2 of eu[0]", "no object") for kind in ("state", "sum")
    ]


def test_a_barrier_and_an_announcement_that_contradict_the_manifest_are_named(own: SmallFederation) -> None:
    own.tell(model_sha256=factories.sha("another"))
    own.announce(1, model_sha256=factories.sha("another"))
    found = [(one.error_id, one.what, one.field) for one in audit(own).findings]
    assert found == [
        ("FLV-5005", "barrier of version 2", "model_sha256"),
        ("FLV-5005", "announcement of version 1", "model_sha256"),
    ]


def test_a_barrier_of_a_version_that_was_never_committed_is_named(own: SmallFederation) -> None:
    own.append(
        "eu",
        0,
        factories.barrier_bytes(
            9,
            own.policy,
            by=own.signer(factories.merger_signer()),
            region="eu",
            reference_sha256=own.manifests[-1].reference_sha256,
        ),
    )
    report = audit(own)
    assert [(one.what, one.field, one.got) for one in report.findings] == [
        ("barrier of version 9", "version", "9")
    ]


def test_a_task_without_versions_is_folded_all_the_same() -> None:
    federation = SmallFederation(partitions={"eu": 1})
    federation.send(2)
    report = audit(federation)
    assert report.identical and report.versions == 0 and report.updates == 2
