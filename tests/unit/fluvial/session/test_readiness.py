"""What a starting run says it waits for: which processes have not shown yet that they are at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.fold.events import Verdict
from fluvial.processes.supervisor import ChildStatus
from fluvial.reading.progress import RunFacts
from fluvial.session.progress_view import plain_line
from fluvial.session.readiness import waits

if TYPE_CHECKING:
    from collections.abc import Mapping

TWO = {"eu": 2, "us": 2}


def waiting(facts: RunFacts, joined: Mapping[str, int], partitions: Mapping[str, int] = TWO) -> list[str]:
    return waits(facts, workers=dict.fromkeys(partitions, 2), partitions=partitions, joined=joined)


def judged(facts: RunFacts, region: str, outcome: str) -> None:
    facts.add_verdict(region, 0, Verdict(len(facts.verdicts), outcome), 1)


def test_at_first_everything_is_waited_for() -> None:
    assert waiting(RunFacts(), {}) == [
        "workers in eu, us (0 of 4 have joined)",
        "the merger",
        "the evaluator",
        "the fleet's first update",
    ]


def test_workers_that_have_joined_are_counted_by_region() -> None:
    assert waiting(RunFacts(), {"eu": 2, "us": 1})[0] == "workers in us (3 of 4 have joined)"


def test_a_region_whose_log_is_judged_has_its_workers_whatever_the_group_says() -> None:
    facts = RunFacts()
    judged(facts, "eu", "control")
    assert waiting(facts, {})[0] == "workers in us (2 of 4 have joined)"


def test_more_workers_than_partitions_are_not_waited_for() -> None:
    assert waiting(RunFacts(), {"eu": 1}, {"eu": 1})[0] == "the merger"


def test_each_part_is_ready_when_its_work_is_seen() -> None:
    facts = RunFacts()
    facts.announced = True
    facts.add_evaluation({"kind": "evaluation", "version": 0, "accuracy": 0.1, "loss": 2.3})
    assert waiting(facts, TWO) == ["the fleet's first update"]
    judged(facts, "eu", "accepted")
    assert waiting(facts, TWO) == ["enough updates for the first version"]


def test_with_the_first_version_nothing_is_waited_for() -> None:
    facts = RunFacts()
    facts.add_evaluation({"kind": "evaluation", "version": 1})
    assert waiting(facts, {}) == []


def test_the_plain_line_says_what_it_waits_for() -> None:
    children = [ChildStatus("merger", "running", 1, 0)]
    line = plain_line("training", 9, RunFacts(), children, ["the merger", "the evaluator"])
    assert line == "training: version 0/9  waiting for the merger, the evaluator  1 of 1 processes up"
