"""A merger's metrics: why it stopped, changes of policy, how late windows were and what was dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from aggregation.errors import IntegrityProblem
from backends.observer import LastScrape
from backends.observing.metrics import Metrics
from backends.observing.roles import MergerMetrics
from tests.unit.backends.observing.observed import made, value
from tests.unit.schemas.test_manifests import manifest as older_manifest
from tests.unit.schemas.test_manifests import manifest_v3

if TYPE_CHECKING:
    from pathlib import Path


def test_a_merger_that_stops_says_why_until_a_scrape_has_seen_it(tmp_path: Path) -> None:
    merger = MergerMetrics(Metrics("merger"), task="t", home=tmp_path)
    merger.adopted(3, ["eu"])
    last_scrape = LastScrape()
    assert value(merger, "fluvial_merger_stopped", error_id="FLV-3002") is None
    assert [last_scrape.awaited, last_scrape.shown] == [False, False]
    merger.merger_stopped(IntegrityProblem("FLV-3002", "divergence"), last_scrape)
    assert [last_scrape.awaited, last_scrape.shown] == [True, False]
    assert merger.ready_problem() == "the merger stopped: FLV-3002" and not merger.live_problem()
    assert (
        'fluvial_merger_stopped{error_id="FLV-3002"} 1.0' in generate_latest(merger.metrics.registry).decode()
    )
    assert last_scrape.shown


def test_a_change_of_policy_is_counted_and_a_mergers_start_is_none(tmp_path: Path) -> None:
    merger: Any = made("merger", tmp_path)
    for version, policy in enumerate("aabba", start=1):
        manifest: Any = SimpleNamespace(accepted=1, version=version, policy_sha256=policy * 64, inputs=())
        merger.committed(manifest, [], 1)
    assert value(merger, "fluvial_policy_changes_total") == 2


def test_a_merger_counts_how_late_windows_were_and_what_was_dropped(tmp_path: Path) -> None:
    merger: Any = made("merger", tmp_path)
    merger.committed(manifest_v3(), [], 1)
    merger.committed(older_manifest(), [], 1)  # it does not say
    assert value(merger, "fluvial_window_late_versions_count", region="eu") == 3
    assert value(merger, "fluvial_window_late_versions_sum", region="eu") == 5 * 3
    assert value(merger, "fluvial_updates_dropped_total", region="eu") == 4
