"""Who may write the store puts there what mergers go by: facts, and a version. No window is passed over, nothing is
signed that was not derived, and an operator's one command lets the merger go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from backends import keys
from backends.store.task_store import TaskStore
from fluvial.proof.audit import audit_task
from schemas.avro import encode
from schemas.certificates import Role
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.envelope import open_envelope
from schemas.manifests import Manifest
from schemas.objects import facts_key, manifest_key, sha256_hex
from schemas.topics import aggregates_topic
from tests import factories
from tests.integration.pipeline import Federation, run_command
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

SLOT = ("eu", 0)
POLICY = factories.policy(
    window={"updates_max": 4, "seconds_max": 1.0}, buffer={"updates": 4, "seconds_max": 2.0}
)
DEVICES = factories.devices(16, partition=0, partitions=1)


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    """One partition whose worker and merger have made version 1."""
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    try:
        federation.start("worker", "worker")
        federation.start("merger", "merger")
        send(federation, DEVICES[:4], base=0)
        federation.await_told(1)
        yield federation
    finally:
        federation.end()


def send(federation: Federation, devices: list[str], *, base: int) -> None:
    for seed, device in enumerate(devices):
        federation.append(SLOT, federation.update(device, base=base, seed=seed))


def plant(federation: Federation, version: int, parent: int) -> str:
    """Another model as the next version, with its files; the SHA-256 of its manifest."""
    head = federation.store.manifest(parent)
    model = encode_model(np.full(federation.layout.parameters, 666.0, np.float32), federation.layout)
    optimizer = encode_optimizer({})
    planted = Manifest(
        task=federation.task, version=version, parent_sha256=sha256_hex(federation.store.manifest_bytes(parent)),
        policy_sha256=head.policy_sha256, inputs=(), cursors=head.cursors, counts={}, accepted=0, weight_total=0,
        staleness_total=0, staleness_max=0, update_bytes=0, model_sha256=sha256_hex(model),
        optimizer_sha256=sha256_hex(optimizer), reference_sha256=head.reference_sha256, floor=0, reason="rollback",
    )  # fmt: skip
    assert federation.store.commit(version, planted.canonical())
    federation.store.write_checkpoint(version, model, optimizer)
    return sha256_hex(planted.canonical())


def announced(federation: Federation) -> set[str]:
    """The hashes of all manifests that a merger has signed."""
    return {open_envelope(one.value or b"").record["manifest_sha256"] for one in federation.announcements()}


def test_a_planted_version_is_signed_by_nobody_and_gone_by_one_command(federation: Federation) -> None:
    merger = federation.running[1]
    far = TaskStore(federation.store.store, federation.task)
    far.store.put(manifest_key(federation.task, 64), b"{}")  # behind a hole: it stops nobody
    evil = plant(federation, 2, 1)
    send(federation, DEVICES[4:8], base=1)
    merger.says("FLV-3305" if "FLV-3305" in merger.log else "version 2 in the store was made by no merger")
    merger.kill()
    again = federation.start("merger", "merger-again")
    again.says("version 2 in the store was made by no merger")
    assert evil not in announced(federation)
    kept = run_command(
        federation.settings.home, "task", "discard", federation.task, "--version", "1", "--yes"
    )
    assert (kept.returncode, "FLV-3306" in kept.stderr) == (4, True), kept.stderr
    gone = run_command(
        federation.settings.home, "task", "discard", federation.task, "--version", "2", "--yes"
    )
    assert gone.returncode == 0, gone.stdout + gone.stderr
    federation.await_told(2)
    assert evil not in announced(federation)
    assert federation.store.get_object(evil), "what was planted is kept, for whoever looks into it"
    report = audit_task(federation.settings, federation.task_file, last=2)
    assert (report.versions, list(report.findings)) == (2, [])


def test_a_stolen_workers_key_stops_nobody_and_is_named(federation: Federation) -> None:
    worker, merger = federation.running
    topic = aggregates_topic(federation.task, "eu")
    honest = open_envelope(federation.records(topic)[-1].value or b"").record
    thief = keys.load_key_pair(keys.issue(federation.keys, "eu", Role.WORKER, "thief")).of_task(
        federation.genesis.domain
    )
    lie = encode("RegionalAggregate", honest | {"contributors_sha256": factories.sha("evil")})
    beyond = encode("RegionalAggregate", honest | {"sequence": honest["sequence"] + 1, "next_offset": 10**6})
    federation.writer.append_now(topic, thief.sign_payload("RegionalAggregate", lie), partition=0)
    merger.says("signed by worker thief")
    worker.stop()
    federation.start("worker", "worker-again")
    send(federation, DEVICES[4:8], base=1)
    federation.await_told(2)
    federation.writer.append_now(topic, thief.sign_payload("RegionalAggregate", beyond), partition=0)
    merger.says("it ends at offset 1000000")
    send(federation, DEVICES[8:12], base=2)
    federation.await_told(3)
    report = audit_task(federation.settings, federation.task_file, last=3)
    assert report.versions == 3
    lies = [one.where for one in report.findings]
    assert {one.error_id for one in report.findings} == {"FLV-5004"}, "the versions are what the log gives"
    assert set(lies) == {f"{topic}[0]@1"} or len(set(lies)) <= 2, lies


@pytest.mark.parametrize(
    "facts",
    [
        b'{"aggregate_offsets": {"eu": {"0": %d}}, "created_at_ms": 1e400}',
        b'{"aggregate_offsets": {"eu": %d}}',
    ],
)
def test_facts_make_no_merger_pass_a_window_over_or_end(federation: Federation, facts: bytes) -> None:
    federation.running[1].stop()
    send(federation, DEVICES[4:12], base=1)
    until(lambda: len(federation.aggregates(SLOT)) >= 3, "windows that no version holds")
    federation.store.store.put(facts_key(federation.task, 1), facts % 3)
    federation.start("merger", "merger-again")
    federation.await_told(3)
