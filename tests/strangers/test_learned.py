"""Federations under policy v5 recomputed by the Go auditor to the digest of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.documents import genesis_v4
from tests.factories import BUFFERED
from tests.learned import lived, policy_of
from tests.strangers.program import Stranger
from tests.strangers.test_defended import require_agreement
from tests.unit.fluvial.proof.checked_copy import copy_of

pytestmark = pytest.mark.needs("go")

POLICIES: dict[str, dict[str, Any]] = {
    "rounds by examples, cosine": {
        "buffer": {"mode": "rounds"},
        "weights": {"by": "examples", "examples_max": 50},
        "schedule": {"kind": "cosine", "versions": 5, "warmup_versions": 1},
        "server": {"momentum": 0.5, "nesterov": True},
    },
    "a share, fadas": {
        "selection": {"kind": "share", "share": 0.6},
        "staleness": {"kind": "polynomial", "versions_max": 4},
        "server": {"optimizer": "amsgrad", "learning_rate": 0.4, "delay_versions_max": 2},
    },
    "slots, adagrad": {
        "selection": {"kind": "slots", "slots": 2},
        "server": {"optimizer": "adagrad"},
        "schedule": {"kind": "step", "versions": 2},
        "buffer": {"late_windows": False},
    },
}
OUTCOMES = {
    "rounds by examples, cosine": "round_over",
    "a share, fadas": "not_selected",
    "slots, adagrad": "not_selected",
}


@pytest.mark.parametrize("mode", ["buffer", "rounds"])
def test_before_signed_manifests_no_window_is_late_and_none_delays(
    stranger: Stranger, tmp_path: Path, mode: str
) -> None:
    server = {"optimizer": "amsgrad", "learning_rate": 0.9, "delay_versions_max": 1}
    policy = policy_of(server=server, buffer={"mode": mode})
    federation = lived(policy, lag=False, document_format=genesis_v4.FORMAT)
    require_agreement(stranger, federation, tmp_path)
    assert copy_of(federation).check().violations == ()
    assert all(manifest.dropped == 0 for manifest in federation.manifests)


V6: dict[str, dict[str, Any]] = {
    "mixing": {
        "server": {"mixing": True, "learning_rate": 0.5, "momentum": 0.3, "divide_by": "weights"},
        "staleness": {"kind": "polynomial", "versions_max": 4},
    },
    "control variates, too": {
        "server": {"mixing": True},
        "control": {"devices": 30, "norm_clip": 0.1},
        "buffer": {"late_windows": False},
    },
}


@pytest.mark.parametrize("name", V6)
def test_it_recomputes_a_federation_of_v6(stranger: Stranger, tmp_path: Path, name: str) -> None:
    layout = BUFFERED if name == "mixing" else BUFFERED.with_control()
    form = "fluvial/genesis/v5" if name == "mixing" else "fluvial/genesis/v6"
    policy = policy_of("fluvial/policy/v6", **V6[name])
    federation = lived(policy, layout=layout, document_format=form)
    require_agreement(stranger, federation, tmp_path)
    report = copy_of(federation).check()
    assert report.violations == () and report.identical


@pytest.mark.parametrize("name", POLICIES)
def test_it_recomputes_a_federation_of_v5(stranger: Stranger, tmp_path: Path, name: str) -> None:
    federation = lived(policy_of(**POLICIES[name]))
    require_agreement(stranger, federation, tmp_path)
    outcomes = {outcome for manifest in federation.manifests for outcome in manifest.counts}
    assert outcomes == {"accepted", OUTCOMES[name]}
    assert any(
        one.version < manifest.version - 1 for manifest in federation.manifests for one in manifest.inputs
    )
    assert any(manifest.dropped for manifest in federation.manifests) == (
        name in "rounds by examples, cosine"
    )
