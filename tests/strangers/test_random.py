"""Random logs under policies since v3, of every defence, folded by code and Go program: the same to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aggregation.defences import DEFENCES
from aggregation.fold.rules import CANONICAL_RULES
from tests.strangers.program import Stranger
from tests.strangers.test_mutated import written
from tests.unit.fluvial.proof import test_checker_fold
from tests.unit.fluvial.proof.test_checker_pardons import log_of_pardons
from tests.vectors.lying import random_log
from tests.vectors.replaying import Log, case_of, folded_case

pytestmark = pytest.mark.needs("go")

NEWER = [{}, test_checker_fold.BUCKETED, {}, test_checker_fold.BUCKETED, *test_checker_fold.LEARNING.values()]
SEEDS = range(len(NEWER))


def case(seed: int, kind: str, per_version: int) -> dict[str, Any]:
    """A log of 120 records, and what it comes to."""
    shares = {"per_version": per_version, "saved_max": per_version}
    newer = NEWER[seed]
    policy = test_checker_fold.rules(kind, shares=shares, **newer)
    return replayed(f"{kind} {seed}", test_checker_fold.random_log(seed, policy))


def replayed(name: str, made: test_checker_fold.Log) -> dict[str, Any]:
    """What a log comes to, as the vectors have it."""
    log = Log(made.policy)
    for timestamp_ms, value in made.records:
        log.add(value, timestamp_ms=timestamp_ms)
    for key in made.objects.keys(""):
        log.keep(made.objects.get(key))
    return folded_case(name, log, CANONICAL_RULES) | {"canonical": True}


def test_random_logs_come_to_the_same(stranger: Stranger, tmp_path: Path) -> None:
    cases = [case(seed, kind, seed % 3) for seed in SEEDS for kind in DEFENCES]
    pardons = [replayed(f"pardons {seed}", log_of_pardons(seed)) for seed in range(4)]
    assert {408, 409} <= {verdict["reason"] for one in pardons for verdict in one["verdicts"]}
    cases += pardons
    edges = [case_of(f"edges {seed}", random_log(seed)) | {"canonical": True} for seed in range(8)]
    assert {340, 345, 346, 347} <= {verdict["reason"] for one in edges for verdict in one["verdicts"]}
    cases += edges
    outcomes = {verdict["outcome"] for one in cases for verdict in one["verdicts"]}
    assert {
        "accepted",
        "anomalous",
        "over_share",
        "quarantined",
        "duplicate",
        "too_stale",
        "revoked",
        "round_over",
        "not_selected",
    } <= outcomes
    assert stranger("vectors", written(tmp_path / "schemas", "logs.json", cases))["problems"] == []
