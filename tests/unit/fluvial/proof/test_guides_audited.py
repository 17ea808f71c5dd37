"""Audit and checker of a guided task: identical where the merger kept the rules, and a finding where it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluvial.proof.audit import audit_task
from fluvial.proof.checker import check_logs
from stream_apps.merger.guiding import Guiding, NextGuide
from tests import factories
from tests.guardians import Guardian, guided_policy, nan_direction
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregation.policy import Policy
    from fluvial.proof.audit import AuditReport
    from fluvial.proof.checker.report import CheckReport
    from stream_apps.merger.version import Version


class Liar(Guiding):
    """A merger's that names what it likes."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256

    def after(self, head: Version, policy: Policy) -> NextGuide:
        del head, policy
        return NextGuide(self.sha256)


def guided(**defence: Any) -> tuple[SmallFederation, Guardian]:
    one = SmallFederation(policy=guided_policy(**defence))
    return one, Guardian(one)


def next_version(one: SmallFederation, lie: str | None = None) -> str:
    """What the next version names: what its merger chooses, else ``lie``."""
    committing = one._running.merger._committing
    honest = committing._guiding
    if lie is not None:
        committing._guiding = Liar(lie)
    one.rounds(1)
    committing._guiding = honest
    return one.manifests[-1].guide_sha256


def audited(one: SmallFederation) -> AuditReport:
    one.fold()
    return audit_task(one.settings, one.task_file, sources=one.sources, jobs=1)


def checked(one: SmallFederation) -> CheckReport:
    one.fold()
    store = one.objects.store
    logs = {
        (topic.name, partition): [
            (record.offset, record.timestamp_ms, record.key, record.value)
            for record in one.records(topic.name, partition)
        ]
        for topic in one.topics
        for partition in range(topic.partitions)
    }
    objects = {key: store.get(key) for key in store.list(f"{one.task}/")}
    return check_logs(logs, objects, one.task, one.genesis.sha256, drained=False)


def test_a_guided_task_is_identical_with_guides_and_without() -> None:
    one, guardian = guided()
    named = [next_version(one)]
    for version in (1, 2, 3):
        guardian.guide(version)
        named.append(next_version(one))
    named += [next_version(one) for _ in range(3)]
    assert [bool(sha256) for sha256 in named] == [False, True, True, True, True, False, False]
    assert sum(manifest.counts.get("anomalous", 0) for manifest in one.manifests) > 0
    report, check = audited(one), checked(one)
    assert list(report.findings) == []
    assert (check.violations, check.identical, check.versions) == ((), True, 7)


LIES: dict[str, tuple[str, dict[str, Any], Callable[[SmallFederation, Guardian], bytes | None]]] = {
    "signed by nobody": ("cannot be decoded", {}, lambda _, g: b"junk"),
    "of a merger": ("of a merger", {}, lambda _, g: g.make(1, by=factories.merger_signer())),
    "of another task": ("another", {}, lambda _, g: g.make(1, task="another")),
    "with NaN": ("no number", {}, lambda f, g: g.raw(1, nan_direction(f.layout))),
    "huge": ("bytes", {}, lambda _, g: g.raw(1, bytes(30_000))),
    "of another base": ("another model", {}, lambda _, g: g.make(1, model_sha256="ab" * 32)),
    "of this very version": ("0 before", {}, lambda f, g: g.make(2, model_sha256=f.models[1])),
    "too old": ("2 before", {"guide_versions_max": 1}, lambda _, g: g.make(0)),
    "none, where it has to wait": ("waits", {"guide_missing": "wait"}, lambda _, g: None),
}


@pytest.mark.parametrize("name", LIES)
def test_a_version_that_names_no_guide_of_a_guardian_is_a_finding(name: str) -> None:
    said, defence, make = LIES[name]
    one, guardian = guided(**defence)
    guardian.guide(0)
    next_version(one)
    data = make(one, guardian)
    lie = "" if data is None else one.objects.put_object(data)
    assert next_version(one, lie) == lie
    guardian.guide(2)
    next_version(one)
    (finding,) = audited(one).findings
    assert (finding.error_id, finding.what) == ("FLV-5030", "manifest of version 2")
    assert said in finding.got
    (violation,) = checked(one).violations
    assert violation.invariant == 2
    assert violation.message.startswith("manifest of version 2: its guide")


def test_a_guide_that_is_gone_or_damaged_is_a_finding() -> None:
    one, guardian = guided()
    sha256 = guardian.guide(0)
    next_version(one)
    guardian.replace(sha256, b"others")
    assert {finding.error_id for finding in audited(one).findings} >= {"FLV-5002"}
    assert not checked(one).identical


def test_a_guide_under_a_policy_without_guides_is_a_finding() -> None:
    one = SmallFederation(policy=factories.policy(format="fluvial/policy/v3", window={"updates_max": 4}))
    next_version(one, one.objects.put_object(Guardian(one).make(0)))
    findings = [finding for finding in audited(one).findings if finding.error_id == "FLV-5030"]
    assert len(findings) == 1
    assert "without guides" in findings[0].got
    assert any("without guides" in one.message for one in checked(one).violations)
