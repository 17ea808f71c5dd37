"""What a guardian counts, and a merger of guides: each has its numbers, and a key's end is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from backends.keys import create_authority, issue, load_key_pair
from backends.observing.metrics import Metrics
from backends.observing.roles import BY_ROLE, GuardianMetrics, MergerMetrics
from backends.settings import Settings, StoreSettings
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, serving
from schemas.certificates import CONTROL, Role
from stream_apps.merger.guides import REFUSALS

if TYPE_CHECKING:
    from pathlib import Path


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_guardian_counts_guides_and_versions_without_one(tmp_path: Path) -> None:
    metrics = Metrics("guardian")
    observer = GuardianMetrics(metrics, task="digits", home=tmp_path)
    assert observer.ready_problem()
    observer.adopted(-1, ("eu",))
    assert not observer.ready_problem()
    assert value(metrics, "fluvial_guided_version") is None
    observer.guided(3, 1.5)
    observer.guide_failed(4, UsageProblem("FLV-2208", "train() fails"))
    observer.guide_failed(5, ValueError("points nowhere"))
    assert value(metrics, "fluvial_guided_version") == 3
    assert value(metrics, "fluvial_guide_seconds_count") == 1
    for error_id in ("FLV-2208", "other"):
        assert value(metrics, "fluvial_guide_failures_total", error_id=error_id) == 1


def test_a_merger_shows_whether_its_versions_are_guided(tmp_path: Path) -> None:
    metrics = Metrics("merger")
    observer = MergerMetrics(metrics, task="digits", home=tmp_path)
    assert value(metrics, "fluvial_unguided") is None
    observer.unguided(1)
    assert value(metrics, "fluvial_unguided") == 1
    observer.guide_named(5, 3)
    assert value(metrics, "fluvial_unguided") == 0
    assert value(metrics, "fluvial_guide_age_versions") == 2
    for reason in REFUSALS:
        observer.guide_refused(reason)
        assert value(metrics, "fluvial_guides_refused_total", reason=reason) == 1


@pytest.mark.parametrize("role", [Role.MERGER, Role.WORKER, Role.GUARDIAN])
def test_whoever_has_a_key_shows_when_it_ends(tmp_path: Path, role: Role) -> None:
    region = "eu" if role is Role.WORKER else CONTROL
    create_authority(tmp_path, region)
    key = issue(tmp_path, region, role, "somebody")
    settings = Settings(
        home=tmp_path, bootstrap_servers="nowhere", store=StoreSettings(kind="file", path=tmp_path)
    )
    identity = ProcessIdentity("digits", role.value, "somebody", certificate=load_key_pair(key).certificate)
    options = MetricsOptions(0, on=True)
    with serving(settings, identity, options, say=lambda _: None, warn=lambda _: None) as observer:
        assert type(observer) is BY_ROLE[role.value]
        ends = value(observer.metrics, "fluvial_certificate_expires_timestamp_seconds")
        assert ends is not None
        assert ends > 0
