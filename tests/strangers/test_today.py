"""Federations of today, of every kind, recomputed by the Go auditor to the digest of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aggregation.fold.events import Parked
from fluvial.proof.audit import audit_task
from schemas.documents import genesis_v3
from schemas.manifests import NEWEST_GENESIS
from tests import factories
from tests.factories import BUFFERED, barrier_bytes, encoded, operator_signer, revoke_bytes
from tests.small_federation import SmallFederation
from tests.strangers.program import SCHEMAS, Stranger
from tests.strangers.recording import record

pytestmark = pytest.mark.needs("go")

WINDOW = {"updates_max": 3, "records_max": 30}
POLICIES: dict[str, dict[str, Any]] = {
    "sgd": {"server": {"learning_rate": 0.7, "divide_by": "weights"}},
    "momentum": {"server": {"momentum": 0.9}, "fixed_point": {"exponent": 40}},
    "adam": {"server": {"optimizer": "adam", "learning_rate": 0.01}, "staleness": {"kind": "hinge"}},
    "yogi": {
        "server": {"optimizer": "yogi", "learning_rate": 0.01},
        "updates": {"codecs": ["int4"], "norm_clip": 0.1},
    },
}


def lived(sections: dict[str, Any], codec: str, document_format: str) -> SmallFederation:
    """A federation with buffers that has seen late, refused, revoked and parked records, and versions of all of it."""
    policy = factories.policy(window=WINDOW, anomaly={"history_updates_min": 4}, **sections)
    federation = SmallFederation(policy=policy, layout=BUFFERED, document_format=document_format)
    names = factories.devices(12, partition=0, partitions=2)
    for version in range(3):
        for n, name in enumerate(names[: 5 + version]):
            tensors = encoded(factories.delta(version * 10 + n, BUFFERED), codec, n, BUFFERED)
            base = max(0, federation.version - n % 2)
            federation.append("eu", 0, federation.update("eu", name, codec=codec, tensors=tensors, base=base))
        loud = encoded(factories.delta(1, BUFFERED, size=2.0), codec, 0, BUFFERED)
        federation.append("eu", 0, federation.update("eu", names[9], codec=codec, tensors=loud))
        at = federation.append("eu", 0, federation.update("eu", names[10], codec=codec, tensors=loud))
        if version == 1:
            park(federation, at)
        federation.append("eu", 0, b"not a record")
        federation.append("eu", 0, None)
        federation.append("eu", 1, revoke_bytes(names[version], task=federation.task))
        federation.append("us", 0, barrier_bytes(99, policy, by=factories.device_signer(names[0])))
        federation.close_windows()
        federation.fold()
        federation.merge()
    federation.fold()
    return federation


def park(federation: SmallFederation, offset: int) -> None:
    """An operator parks a record at which the workers' fold raises."""
    federation.parked[("eu", 0), offset] = Parked(offset + 1, "it raises")
    fields = {
        "task": federation.task,
        "region": "eu",
        "partition": 0,
        "offset": offset,
        "reason": "it raises",
    }
    federation.append("eu", 0, federation.signer(operator_signer()).sign("Skip", fields))


KINDS = [*((name, NEWEST_GENESIS) for name in POLICIES), ("adam", genesis_v3.FORMAT)]


@pytest.mark.parametrize(("name", "document_format"), KINDS)
def test_it_recomputes_a_federation_of_today(
    stranger: Stranger, tmp_path: Path, name: str, document_format: str
) -> None:
    codec = "int4" if name == "yogi" else "float32" if name == "momentum" else "int8"
    federation = lived(POLICIES[name], codec, document_format)
    record(federation, tmp_path)
    audit = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert audit.identical, audit.findings.shown
    found = stranger("audit", SCHEMAS, tmp_path, federation.task, federation.task_file.genesis_sha256)
    assert found["problems"] == []
    assert (found["digest"], found["versions"]) == (audit.digest, 3)
    outcomes = {outcome for manifest in federation.manifests for outcome in manifest.counts}
    assert {"accepted", "undecodable", "skipped", "bad_signature"} <= outcomes
