"""A region's backlog after an outage weighs as late as it is, is dropped where it is too late, and audits say the same.

The region's worker is away while the other one goes on. The barriers stand in its log all the while, so its windows are
closed by them and say under which version they were folded.
"""

from __future__ import annotations

from typing import Any

import pytest

from aggregation.policy import Policy
from aggregation.weights.fixed_point import WEIGHT_ONE
from fluvial.proof.audit.run import audit_task
from fluvial.proof.checker import check_logs
from schemas.manifests import Input, Manifest
from tests import factories
from tests.small_federation import IN_MEMORY, SmallFederation
from tests.unit.fluvial.proof.checked_copy import copy_of

AWAY = 8
"""So many versions are made while the region is away."""


def rules(**sections: Any) -> Policy:
    small = {"window": {"updates_max": 64}, "buffer": {"updates": 64}, "server": {"momentum": 0.5}}
    return factories.policy(**{"format": "fluvial/policy/v3"} | small | sections)


def after_an_outage(policy: Policy, **fields: Any) -> SmallFederation:
    """``AWAY`` versions of eu alone, while updates come in us all the time; then us folds what stands there."""
    federation = SmallFederation(policy=policy, partitions={"eu": 1, "us": 1}, **fields)
    federation.rounds(1)
    federation.away.add("us")
    for _ in range(AWAY):
        federation.send()
        federation.close_windows()
        federation.fold()
        federation.merge()
    federation.away.clear()
    federation.send()
    federation.close_windows()
    federation.fold()
    federation.merge()
    return federation


def of(manifest: Manifest, region: str) -> list[Input]:
    return [one for one in manifest.inputs if one.region == region]


def require_true(federation: SmallFederation) -> None:
    """Audit and checker, which recompute everything, find nothing."""
    report = audit_task(IN_MEMORY, federation.task_file, jobs=1, sources=federation.sources)
    assert report.identical, [str(one) for one in report.findings]
    copy = copy_of(federation)
    found = check_logs(
        copy.logs, copy.objects, copy.task, copy.genesis_sha256, drained=False, clock_skew_ms=None
    )
    assert not found.violations, found.violations


@pytest.mark.parametrize("layout", [factories.LAYOUT, factories.BUFFERED], ids=["weights", "buffers"])
def test_a_backlog_after_an_outage_weighs_as_late_as_it_is(layout: Any) -> None:
    federation = after_an_outage(rules(), layout=layout)
    manifest, weights = federation.manifests[-1], federation.policy.staleness.weights
    parent = manifest.version - 1
    late = of(manifest, "us")
    assert len({one.version for one in late}) > AWAY // 2
    assert max(parent - one.version for one in late) >= AWAY - 1
    assert [one.weight for one in late] == [weights[parent - one.version] for one in late]
    assert {one.weight for one in of(manifest, "eu")} == {WEIGHT_ONE}
    assert manifest.dropped == 0
    assert manifest.weight_total == sum(
        max(1, (one.weight_total * one.weight + 32768) >> 16) for one in manifest.inputs if one.accepted
    )
    assert manifest.weight_total < sum(one.weight_total for one in manifest.inputs)
    require_true(federation)


def test_what_is_later_than_the_bound_is_named_and_dropped() -> None:
    federation = after_an_outage(rules(staleness={"versions_max": 3}))
    manifest = federation.manifests[-1]
    parent = manifest.version - 1
    dropped = [one for one in of(manifest, "us") if parent - one.version > 3]
    assert dropped and all(one.is_dropped for one in dropped)
    assert {one.sha256 for one in manifest.inputs if one.is_dropped} == {one.sha256 for one in dropped}
    assert manifest.dropped == sum(one.accepted for one in dropped) > 0
    assert manifest.counts["accepted"] == manifest.accepted + manifest.dropped
    require_true(federation)


def test_nothing_is_late_where_the_policy_says_so() -> None:
    off = after_an_outage(rules(buffer={"updates": 64, "late_windows": False}, staleness={"versions_max": 3}))
    manifest = off.manifests[-1]
    assert {one.weight for one in manifest.inputs} == {WEIGHT_ONE}
    assert max(manifest.version - 1 - one.version for one in manifest.inputs) >= AWAY - 1
    assert manifest.weight_total == sum(one.weight_total for one in manifest.inputs)
    require_true(off)


def test_before_policy_v3_manifests_say_nothing_of_it() -> None:
    before = after_an_outage(factories.policy(window={"updates_max": 64}, buffer={"updates": 64}))
    assert {one.format for one in before.manifests} == {"fluvial/manifest/v2"}
    assert b'"weight"' not in before.manifests[-1].canonical()
    require_true(before)


def test_a_backlog_moves_the_model_less_than_fresh_windows_do() -> None:
    """The same logs, with lateness and without: only the last version differs, and by what was late."""
    on, off = after_an_outage(rules()), after_an_outage(rules(buffer={"updates": 64, "late_windows": False}))
    assert len(on.models) == len(off.models)
    assert on.manifests[-1].accepted == off.manifests[-1].accepted
    assert on.manifests[-1].weight_total < off.manifests[-1].weight_total
