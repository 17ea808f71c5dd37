"""Federations under policy v3, of every defence, recomputed by the Go auditor to the digest of the audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aggregation.defences import DEFENCES
from fluvial.proof.audit import audit_task
from schemas.documents import genesis_v4
from tests.defended import MERGES, bucketed, lived
from tests.small_federation import SmallFederation
from tests.strangers.program import SCHEMAS, Stranger
from tests.strangers.recording import record

pytestmark = pytest.mark.needs("go")


def require_agreement(stranger: Stranger, federation: SmallFederation, folder: Path) -> None:
    """The audit finds nothing, and the stranger comes to its digest."""
    record(federation, folder)
    audit = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    assert audit.identical, audit.findings.shown
    found = stranger("audit", SCHEMAS, folder, federation.task, federation.task_file.genesis_sha256)
    assert found["problems"] == []
    assert (found["digest"], found["versions"]) == (audit.digest, len(federation.manifests))


@pytest.mark.parametrize("kind", DEFENCES)
def test_it_recomputes_a_federation_of_every_defence(stranger: Stranger, tmp_path: Path, kind: str) -> None:
    federation = lived(kind)
    require_agreement(stranger, federation, tmp_path)
    outcomes = {outcome for manifest in federation.manifests for outcome in manifest.counts}
    assert {"accepted", "over_share", "duplicate", "too_stale", "bad_signature"} <= outcomes
    assert ({"quarantined", "anomalous"} <= outcomes) == (kind != "none")
    late = {one.weight for manifest in federation.manifests for one in manifest.inputs}
    assert len(late) >= 3 and {0, 65536} <= late
    assert any(manifest.dropped for manifest in federation.manifests)
    assert all(manifest.usual.norms and manifest.usual.shares for manifest in federation.manifests)
    guides = [manifest.guide_sha256 for manifest in federation.manifests]
    assert [bool(one) for one in guides] == [kind == "guide" and n > 0 for n in range(len(guides))]


@pytest.mark.parametrize(
    "options",
    [
        {"shares": {"per_version": 0}, "buffer": {"updates": 50, "late_windows": False}},
        {"document_format": genesis_v4.FORMAT},
        {"server": {"optimizer": "adam", "learning_rate": 0.01, "divide_by": "weights"}},
    ],
    ids=["shares and lateness off", "an older genesis", "adam by weights"],
)
def test_it_recomputes_one_of_other_rules(
    stranger: Stranger, tmp_path: Path, options: dict[str, object]
) -> None:
    require_agreement(stranger, lived("median", **options), tmp_path)


@pytest.mark.parametrize("merge", MERGES)
def test_it_recomputes_a_federation_of_every_merge(stranger: Stranger, tmp_path: Path, merge: str) -> None:
    federation = bucketed(merge, "guide" if merge == "mixing" else "median")
    require_agreement(stranger, federation, tmp_path)
    late = {one.weight for manifest in federation.manifests for one in manifest.inputs}
    assert len(late) >= 3 and {0, 65536} <= late


def test_it_says_what_is_wrong_with_a_guide(stranger: Stranger, tmp_path: Path) -> None:
    federation = lived("guide")
    record(federation, tmp_path)
    name = federation.manifests[-1].guide_sha256
    path = tmp_path / "store" / federation.task / "objects" / name[:2] / name
    path.write_bytes(path.read_bytes()[:-1])
    found = stranger("audit", SCHEMAS, tmp_path, federation.task, federation.task_file.genesis_sha256)
    assert any(name in problem and "guide" in problem for problem in found["problems"]), json.dumps(found)
