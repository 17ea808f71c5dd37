"""How long a part was missed, from what the broker wrote down: made-up logs whose answer is known."""

from __future__ import annotations

import pytest

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, CONTROL
from aggregation.reasons import said
from fluvial.proof.chaos.history import FaultRecord
from fluvial.proof.chaos.parts import Cast
from fluvial.proof.chaos.recovery import Appends, recoveries, summary
from fluvial.proof.chaos.schedule import Fault, Kind
from fluvial.reading.progress import RunFacts

CREW = Cast({"eu": 2}, 2, store=True)
KILLED_AT = 100.0


def kill(target: str, at: float = KILLED_AT, seconds: float = 1.0) -> FaultRecord:
    return FaultRecord(
        Fault(1, 0.0, "kill", target, seconds), at, at + seconds, ok=True, outcome="", killed_at=(at,)
    )


def other(kind: Kind, target: str, began_at: float, ended_at: float) -> FaultRecord:
    return FaultRecord(Fault(2, 0.0, kind, target, 1.0), began_at, ended_at, ok=True, outcome="")


def facts_of(judged: dict[tuple[int, int], float], details: dict[tuple[int, int], str]) -> RunFacts:
    facts = RunFacts()
    for (partition, offset), at in judged.items():
        detail = details.get((partition, offset), "")
        outcome = CONTROL if detail else ACCEPTED
        facts.add_verdict("eu", partition, Verdict(offset, outcome, said(detail)), round(at * 1000))
    return facts


APPENDS: Appends = {("eu", 0): [98_000, 101_000, 102_000], ("eu", 1): [99_000, 100_500, 109_000]}
JUDGED = {
    (0, 0): 98.1,
    (0, 1): 104.0,
    (0, 2): 104.1,
    (1, 0): 99.1,
    (1, 1): 107.5,
    (1, 2): 109.1,
}
BARRIERS = {(0, 0): "barrier to version 1 (version)", (0, 2): "barrier to version 2 (version)"}


def test_a_worker_recovers_when_its_slowest_partition_judges_what_came_after_the_kill() -> None:
    (found,) = recoveries([kill("worker-eu-0")], CREW, APPENDS, facts_of(JUDGED, {}))
    assert found.seconds == pytest.approx(7.5)
    assert found.alone


def test_a_worker_whose_records_have_no_verdict_has_not_recovered() -> None:
    judged = {place: at for place, at in JUDGED.items() if place != (1, 1)}
    (found,) = recoveries([kill("worker-eu-0")], CREW, APPENDS, facts_of(judged, {}))
    assert found.seconds is None


def test_mergers_recover_with_the_first_barrier_of_a_new_version() -> None:
    (found,) = recoveries([kill("mergers")], CREW, APPENDS, facts_of(JUDGED, BARRIERS))
    assert found.role == "merger"
    assert found.seconds == pytest.approx(2.0)


def test_a_barrier_that_comes_late_to_another_partition_is_no_new_version() -> None:
    late = {(0, 0): "barrier to version 1 (version)", (1, 1): "barrier to version 1 (version)"}
    (found,) = recoveries([kill("merger-0")], CREW, APPENDS, facts_of(JUDGED, late))
    assert found.seconds is None


@pytest.mark.parametrize(
    ("disturbance", "alone"),
    [
        (other("pause", "broker", 103.0, 104.0), False),
        (other("pause", "broker", 80.0, 95.0), False),
        (other("pause", "broker", 80.0, 91.0), True),
        (other("pause", "worker-eu-1", 103.0, 104.0), False),
        (other("pause", "fleet", 103.0, 104.0), False),
        (other("pause", "merger-0", 103.0, 104.0), True),
        (other("pause", "broker", 108.0, 109.0), True),
    ],
)
def test_a_kill_is_alone_when_nothing_it_stands_on_was_broken(
    disturbance: FaultRecord, *, alone: bool
) -> None:
    found = recoveries([kill("worker-eu-0"), disturbance], CREW, APPENDS, facts_of(JUDGED, {}))
    assert [one.alone for one in found] == [alone]


@pytest.mark.parametrize("role", ["worker", "merger"])
def test_a_merger_that_may_have_waited_for_a_guide_was_not_alone(role: str) -> None:
    records = [
        kill("worker-eu-0" if role == "worker" else "merger-0"),
        other("pause", "guardian-1", 99.0, 101.0),
    ]
    found = recoveries(records, CREW, APPENDS, facts_of(JUDGED, BARRIERS))
    assert [one.alone for one in found] == [role == "worker"]


def test_kills_of_other_parts_have_no_recovery_of_this_kind() -> None:
    records = [kill("broker"), kill("fleet"), kill("evaluator"), kill("store"), kill("guardian-0")]
    assert recoveries(records, CREW, APPENDS, facts_of(JUDGED, {})) == []


def test_the_summary_has_each_role_and_all() -> None:
    records = [kill("worker-eu-0"), kill("mergers", 98.5)]
    document = summary(recoveries(records, CREW, APPENDS, facts_of(JUDGED, BARRIERS)))
    assert document["worker"]["n"] == 1 and document["worker"]["max"] == pytest.approx(7.5)
    assert document["merger"]["max"] == pytest.approx(3.5)
    assert document["n"] == 2 and document["p50"] == pytest.approx(5.5)
    assert [one["target"] for one in document["kills"]] == ["worker-eu-0", "mergers"]


def test_a_summary_of_nothing_says_so() -> None:
    assert summary([])["worker"] == {
        "p50": None,
        "max": None,
        "n": 0,
        "alone": {"p50": None, "max": None, "n": 0},
    }
