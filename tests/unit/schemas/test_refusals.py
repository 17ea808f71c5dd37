"""What counts as refused: one definition, and every view of the same verdicts gives the same two numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aggregation.fold.events import Event, RejectedRecord, Verdict
from aggregation.fold.rejections import ACCEPTED, AGGREGATED, CONTROL, OUTCOMES, PARKED, RejectionReason
from aggregation.reasons import NOTHING
from backends.log import LogRecord
from backends.observing.metrics import Metrics
from backends.observing.worker import WorkerMetrics
from fluvial.console.recent import Recent, SlotFacts
from fluvial.reading.progress import RunFacts
from fluvial.reading.versions import version_line
from schemas.canaries import canary_name
from schemas.manifests import Manifest
from schemas.refusals import UNJUDGED, Judged, Standing, judged_of, standing_of
from stream_apps.analysts.metric_records import version_record
from stream_apps.analysts.window_facts import WindowFacts
from tests.unit.fluvial.console.console_home import manifest

ROOT = Path(__file__).parents[3]
SLOT = ("eu", 0)
CANARY = canary_name("eu")
VERDICTS = [
    *(Verdict(offset, ACCEPTED, device_id=f"d-{offset}") for offset in range(8)),
    Verdict(8, "too_stale", device_id="d-1"),
    Verdict(9, "undecodable"),
    *(Verdict(offset, "future_base", device_id=CANARY) for offset in (10, 11, 12)),
    Verdict(13, "bad_signature", device_id=CANARY),
    Verdict(14, "wrong_region", device_id=canary_name("us")),
    Verdict(15, CONTROL),
    Verdict(16, PARKED, device_id="d-2"),
]
"""8 accepted, 3 refused, 4 of the region's own canary, one control record, one parked."""
EXPECTED = Judged(8, 3)
CANARIES = 4
# A window counts by outcome, what is no update's control record among them: whose they are it does not know.
COUNTS = {
    "accepted": 8,
    "too_stale": 1,
    "undecodable": 1,
    "future_base": 3,
    "bad_signature": 1,
    "wrong_region": 1,
}


def a_manifest() -> Manifest:
    from msgspec.structs import replace

    return replace(manifest(1), counts=COUNTS | {PARKED: 1}, accepted=8)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_is_in_one_number(outcome: str) -> None:
    usual = {ACCEPTED: Standing.ACCEPTED} | dict.fromkeys((CONTROL, PARKED, AGGREGATED), Standing.UNJUDGED)
    assert standing_of(outcome, "eu", "d-1") is usual.get(outcome, Standing.REFUSED)
    of_canary = standing_of(outcome, "eu", CANARY)
    assert of_canary is usual.get(outcome, Standing.CANARY)
    assert standing_of(outcome, "us", CANARY) is usual.get(outcome, Standing.REFUSED), "another region's"


def test_counts_are_those_of_the_verdicts_and_never_below_nothing() -> None:
    assert judged_of(COUNTS | {PARKED: 1, CONTROL: 5}, CANARIES) == EXPECTED
    assert judged_of({"accepted": 2, "future_base": 1}, 99) == Judged(2, 0)
    assert judged_of({"accepted": 2}, -3) == Judged(2, 0)
    assert (Judged(0, 0).refused_share, Judged(9, 1).refused_share) == (None, 0.1)
    assert (Judged(0, 0).accepted_share, Judged(9, 1).accepted_share) == (None, 0.9)


def test_the_console_counts_so() -> None:
    recent = Recent({SLOT: SlotFacts()})
    for verdict in VERDICTS:
        recent.add_verdict(SLOT, verdict.offset, verdict, 1_000_000)
    assert judged_of({outcome: count for (_, outcome), count in recent.outcomes.items()}) == EXPECTED
    assert recent.bins["eu"].sums(1_000_000, 60) == EXPECTED
    assert recent.canaries["eu"] == CANARIES
    assert not [one for one in recent.refusals if one.verdict.device_id == CANARY]
    assert CANARY not in {one.device_id for one in recent.devices.rows()}


def test_a_run_counts_so() -> None:
    facts = RunFacts()
    for verdict in VERDICTS:
        facts.add_verdict("eu", 0, verdict, 1000)
    assert judged_of(facts.outcomes()) == EXPECTED
    assert len(facts.canaries) == CANARIES


def test_a_workers_metrics_count_so(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    event: Event = RejectedRecord(RejectionReason.DUPLICATE, NOTHING)
    for verdict in VERDICTS:
        worker.judged(SLOT, LogRecord("fl.t.updates.eu", 0, verdict.offset, 1000, None, b"x"), event, verdict)

    def counted(name: str) -> dict[str, int]:
        samples = [one for family in worker.metrics.registry.collect() for one in family.samples]
        return {one.labels["outcome"]: int(one.value) for one in samples if one.name == name}

    assert judged_of(counted("fluvial_verdicts_total")) == EXPECTED
    assert sum(counted("fluvial_canary_verdicts_total").values()) == CANARIES


def test_windows_and_versions_for_analysts_count_so() -> None:
    facts = WindowFacts(SLOT, 0)
    for verdict in VERDICTS:
        facts.add(LogRecord("fl.t.updates.eu", 0, verdict.offset, 1000, None, b"x"), verdict, None)
    assert facts.canaries.total() == CANARIES
    record = version_record(a_manifest(), 0, None, None, facts.canaries)
    assert Judged(record["accepted"], record["refused"]) == EXPECTED


def test_a_line_of_versions_counts_so() -> None:
    line = version_line(a_manifest(), None, {}, CANARIES)
    assert Judged(line.accepted, line.refused) == EXPECTED


def test_dashboards_and_rules_leave_the_same_outcomes_out() -> None:
    files = [
        *(ROOT / "infra" / "grafana" / "dashboards").glob("*.json"),
        *(ROOT / "infra" / "prometheus" / "rules").glob("*.yml"),
    ]
    left_out = [
        (path.name, set(words.split("|")))
        for path in files
        for words in re.findall(r'outcome!~\\?"([a-z_|]+)', path.read_text())
    ]
    assert len(left_out) > 5
    assert [place for place in left_out if not place[1] >= UNJUDGED] == []


def test_the_metrics_page_says_what_counts() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert "## What counts as refused" in text
