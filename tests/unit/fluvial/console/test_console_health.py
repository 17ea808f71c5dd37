"""Health is the worst of its parts, with its reason; each rule on both sides of its limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fluvial.console.health import Facts, RegionFacts, health_of
from fluvial.console.now import facts_of
from fluvial.reading.evaluations import Evaluated
from schemas.manifests import NEWEST_GENESIS, Metric
from tests.factories import NONCE
from tests.unit.fluvial.console.console_home import LongLog, fill_store, page_on
from tests.unit.house.test_hints import problem_of

EU = RegionFacts("eu", ["ready"], 1, 0, 0.0, "none")
WELL = Facts(
    head=12,
    age_seconds=3.0,
    interval_seconds=2.0,
    updates_arrive=True,
    updates_judged=100,
    accept_ratio=0.9,
    merger_states=["ready"],
    evaluator_states=["ready"],
    regions=[EU],
)


OLD: dict[str, Any] = {"age_seconds": 61.0, "interval_seconds": None}


def region(**changed: Any) -> dict[str, Any]:
    return {"regions": [EU, replace(EU, region="us", **changed)]}


def test_when_all_is_well_the_reason_is_the_heads_age() -> None:
    found = health_of(WELL)
    assert (found["word"], found["level"], found["part"]) == ("healthy", "ok", "merger")
    assert found["reason"] == "version 12 is 3.0 s old"
    assert [part["name"] for part in found["parts"]] == [
        "kafka",
        "store",
        "merger",
        "region eu",
        "updates",
        "evaluator",
    ]


@pytest.mark.parametrize(
    ("changed", "level", "part", "reason"),
    [
        ({"kafka_problem": "no broker answers"}, "bad", "kafka", "no broker answers"),
        ({"store_problem": "no answer"}, "bad", "store", "no answer"),
        ({"kafka_asked": False}, "unknown", "kafka", "kafka not asked yet"),
        ({"head": None}, "unknown", "merger", "not known yet"),
        ({"age_seconds": 6.0}, "ok", "merger", "6.0 s old"),
        ({"age_seconds": 6.1}, "warn", "merger", "usually a version takes 2.0 s"),
        ({"age_seconds": 20.1}, "bad", "merger", "and updates arrive"),
        ({"age_seconds": 500.0, "updates_arrive": False}, "ok", "merger", "8 min old"),
        ({"age_seconds": 500.0, "interval_seconds": None}, "ok", "merger", "8 min old"),
        ({"interval_seconds": 0.1, "age_seconds": 5.9}, "ok", "merger", "5.9 s old"),
        ({"merger_states": ["gone"]}, "bad", "merger", "does not answer"),
        ({"merger_states": ["gone", "ready"]}, "ok", "merger", "version 12"),
        ({"merger_states": []}, "unknown", "merger", "no merger runs on this machine"),
        ({"evaluator_states": ["gone"]}, "warn", "evaluator", "does not answer"),
        ({"evaluator_states": []}, "ok", "merger", "version 12"),
        ({"evaluated": Evaluated(12)}, "ok", "merger", "version 12"),
        ({"evaluated": Evaluated(11)}, "ok", "merger", "version 12"),
        (
            {"evaluated": Evaluated(11), **OLD},
            "warn",
            "evaluator",
            "version 12 waits for its evaluation for 61 s",
        ),
        (
            {"evaluated": Evaluated(2), "interval_seconds": 7.0},
            "warn",
            "evaluator",
            "version 3 waits for its",
        ),
        ({"evaluated": Evaluated(4), "interval_seconds": 7.0}, "ok", "merger", "version 12"),
        ({"evaluated": Evaluated(-1), **OLD, "evaluator_states": []}, "ok", "merger", "version 12"),
        ({"evaluated": Evaluated(3), **OLD, "evaluator_states": []}, "warn", "evaluator", "waits for its"),
        (
            {"evaluated": Evaluated(12, 1, "not_finite", "FLV-2209")},
            "warn",
            "evaluator",
            "version 12 has no evaluation: not finite FLV-2209",
        ),
        (
            {"evaluated": Evaluated(12, 3, "late", "FLV-6312")},
            "warn",
            "evaluator",
            "the 3 newest versions have no evaluation: late FLV-6312",
        ),
        ({"accept_ratio": 0.5}, "ok", "merger", "version 12"),
        ({"accept_ratio": 0.49}, "warn", "updates", "only 49%"),
        ({"accept_ratio": 0.1, "updates_judged": 9}, "ok", "merger", "version 12"),
        (region(worker_states=["ready", "gone"]), "bad", "region us", "1 of its 2 workers"),
        (region(lag_records=None), "unknown", "region us", "not known yet"),
        (region(lag_records=5, members=0, worker_states=[]), "bad", "region us", "no worker has joined"),
        (region(members=0, worker_states=[]), "unknown", "region us", "nothing waits"),
        (region(lag_records=5, lag_seconds=10.0, trend="rising"), "ok", "merger", "version 12"),
        (region(lag_records=5, lag_seconds=10.1, trend="rising"), "warn", "region us", "10 s, rising"),
        (region(lag_records=5, lag_seconds=10.1, trend="steady"), "warn", "region us", "steady"),
        (region(lag_records=5, lag_seconds=99.0, trend="falling"), "ok", "merger", "version 12"),
        (region(lag_records=5, lag_seconds=60.1, trend="rising"), "bad", "region us", "rising"),
    ],
)
def test_a_part_out_of_order_is_the_health(
    changed: dict[str, Any], level: str, part: str, reason: str
) -> None:
    found = health_of(replace(WELL, **changed))
    assert (found["level"], found["part"]) == (level, part), found
    assert reason in found["reason"]


REST: dict[str, Any] = {
    "merger_states": [],
    "evaluator_states": [],
    "age_seconds": 200.0,
    "updates_arrive": False,
    "metric": "accuracy 93.1 %",
    "regions": [replace(EU, worker_states=[], members=0)],
}
"""A task on which nobody works any more."""


def test_a_task_that_nobody_works_on_and_in_which_nothing_waits_is_finished() -> None:
    found = health_of(replace(WELL, **REST))
    assert (found["word"], found["level"], found["part"]) == ("finished", "ok", "merger")
    assert found["reason"] == (
        "12 versions, the last 3 min ago, accuracy 93.1 %; nobody works on it, and nothing waits"
    )
    assert {part["level"] for part in found["parts"]} == {"ok"}
    assert {part["word"] for part in found["parts"]} == {"answers", "finished", "ended", "none"}
    few = health_of(
        replace(WELL, **REST | {"head": 1, "metric": "", "age_seconds": None, "accept_ratio": 0.1})
    )
    assert (few["word"], few["reason"]) == ("finished", "1 version; nobody works on it, and nothing waits")


@pytest.mark.parametrize(
    ("metric", "evaluation", "words"),
    [
        (None, {"accuracy": 0.93125, "loss": 0.2}, "accuracy 93.1 %"),
        (Metric("r2", higher_is_better=True), {"loss": 0.5, "mae": 3.0, "r2": 0.8712}, "r2 0.8712"),
        (Metric("mae", higher_is_better=False), {"loss": 0.5, "mae": 3.0, "r2": 0.8712}, "mae 3.0000"),
        (Metric("r2", higher_is_better=True), {"loss": 0.5}, ""),
        (None, {}, ""),
    ],
)
def test_a_finished_task_says_what_it_reached_in_its_own_metric(
    tmp_path: Path, metric: Metric | None, evaluation: dict[str, float], words: str
) -> None:
    page = page_on(fill_store(tmp_path / "store", 3, 1), LongLog(), tmp_path, head=3)
    seen = page.known.store.value
    assert seen is not None
    task = structs.replace(seen.genesis, metric=metric, nonce=NONCE, format=NEWEST_GENESIS)
    known = replace(page.known, store=replace(page.known.store, value=replace(seen, genesis=task)))
    assert page.watch.recent is not None
    if evaluation:
        page.watch.recent.add_metric({"kind": "evaluation", "version": 3, **evaluation})
    assert facts_of(known, page.watch.recent).metric == words


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"head": 0}, "unknown"),
        ({"merger_states": ["starting"]}, "unknown"),
        ({"merger_states": ["gone"]}, "broken"),
        ({"kafka_problem": "away"}, "broken"),
        ({"store_asked": False}, "unknown"),
        ({"regions": [replace(EU, worker_states=[], members=0, lag_records=4)]}, "broken"),
        ({"regions": [replace(EU, worker_states=[], members=None)]}, "unknown"),
        ({"regions": [replace(EU, worker_states=[], members=1)]}, "unknown"),
        ({"regions": [replace(EU, worker_states=[], members=0, lag_records=None)]}, "unknown"),
        ({"regions": [REST["regions"][0], replace(EU, region="us")]}, "unknown"),
        ({"regions": []}, "unknown"),
        ({"regions": [replace(EU, worker_states=["gone"], members=0)]}, "broken"),
    ],
)
def test_a_task_that_waits_or_is_worked_on_or_is_not_known_is_not_finished(
    changed: dict[str, Any], word: str
) -> None:
    assert health_of(replace(WELL, **REST | changed))["word"] == word


def test_the_worst_part_wins_and_of_equals_the_first() -> None:
    found = health_of(replace(WELL, kafka_problem="away", store_problem="away", accept_ratio=0.1))
    assert (found["part"], found["word"]) == ("kafka", "broken")


UNWELL: list[dict[str, Any]] = [
    {"kafka_problem": "no broker answers"},
    {"store_problem": "no answer"},
    {"age_seconds": 6.1},
    {"age_seconds": 20.1},
    {"merger_states": ["gone"], "gone": [("merger", "merger-0")]},
    {"merger_states": []},
    {"evaluator_states": ["gone"], "gone": [("evaluator", "evaluator 0")]},
    {"accept_ratio": 0.49},
    region(worker_states=["ready", "gone"], gone=["worker-us-0"]),
    region(worker_states=["gone"] * 9, gone=[f"worker-us-{number}" for number in range(9)]),
    region(lag_records=5, members=0, worker_states=[]),
    region(members=0, worker_states=[]),
    region(lag_records=5, lag_seconds=10.1, trend="rising"),
    region(stopped=["partition us[0] stopped: FLV-3202"]),
    {"disproved": (7, 2, 0)},
    {"evaluated": Evaluated(12, 2, "failed", "FLV-2209")},
    {"evaluated": Evaluated(3), **OLD},
]


@pytest.mark.parametrize("changed", UNWELL, ids=str)
def test_whatever_is_not_well_says_the_command_that_mends_it_and_its_runbook(changed: dict[str, Any]) -> None:
    found = health_of(replace(WELL, task="a task", **changed), "fluvial --home /h")
    part = next(one for one in found["parts"] if one["name"] == found["part"])
    assert part["level"] != "ok"
    mend = part["mend"]
    assert 1 <= len(mend["commands"]) <= 3
    for command in mend["commands"]:
        assert command.startswith("fluvial --home /h ")
        assert "{" not in command
        assert problem_of(command.replace("--home /h ", "")) == ""
        assert "--task 'a task'" in command or command.endswith((" up", " doctor"))
    assert mend["runbook"]["page"].startswith("/docs/runbooks/")


def test_a_process_that_is_gone_is_started_under_its_own_name() -> None:
    found = health_of(replace(WELL, task="t", **region(worker_states=["gone"], gone=["w 1"])))
    part = next(one for one in found["parts"] if one["name"] == "region us")
    assert part["mend"]["commands"] == ["fluvial worker --task t --region us --name 'w 1'"]


def test_an_error_that_a_part_names_has_its_page() -> None:
    found = health_of(replace(WELL, **region(stopped=["partition us[0] stopped: FLV-3202"])))
    part = next(one for one in found["parts"] if one["name"] == "region us")
    assert (part["level"], part["word"]) == ("bad", "stopped")
    assert part["mend"]["errors"] == [{"id": "FLV-3202", "page": "/docs/errors/FLV-3202.md"}]


def test_what_is_well_has_nothing_to_mend() -> None:
    assert {part["mend"] for part in health_of(WELL)["parts"]} == {None}


def test_every_part_names_the_page_that_shows_more() -> None:
    assert {part["page"] for part in health_of(WELL)["parts"]} <= {"#/flow", "#/versions", "#/refused"}
