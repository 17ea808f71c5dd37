"""What a run cost, by the price list and in its unit: in all, a version, and a point of the task's metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluvial.reading.progress import RunFacts
from fluvial.reading.spending import Costs, spending_line
from fluvial.session.report.render import render
from fluvial.session.summary import document, summarize
from fluvial.terminal.output import Output
from tests.unit.fluvial.session.test_report import COMMAND, facts, result

if TYPE_CHECKING:
    from pathlib import Path


def minute(sequence: int, cost: object = 0.5, minute_ms: int = 60_000, **more: Any) -> dict[str, Any]:
    fields = {
        "kind": "region_minute",
        "region": "eu",
        "partition": 0,
        "sequence": sequence,
        "currency": "EUR",
    }
    return {**fields, "minute_ms": minute_ms, "cost_total": cost, **more}


def spent(*minutes: dict[str, Any]) -> RunFacts:
    made = facts()
    for one in minutes:
        made.add_evaluation(one)
    return made


def test_a_minute_that_comes_twice_costs_once_and_a_window_may_have_several() -> None:
    costs = Costs()
    for one in (minute(0), minute(0), minute(0, 0.25, 120_000), minute(1, 1.0)):
        costs.add(one)
    assert (costs.total, costs.currency) == (1.75, "EUR")
    assert costs.of([("eu", 0, 0)]) == 0.75
    assert costs.of([("eu", 0, 0), ("eu", 0, 7)]) is None and costs.of([]) is None


@pytest.mark.parametrize(
    "junk",
    [
        minute(0, None),
        minute(0, float("nan")),
        minute(0, "1"),
        minute(0) | {"region": 3},
        minute(0) | {"partition": True},
        minute(0) | {"sequence": "0"},
        {"kind": "window"},
    ],
)
def test_what_is_no_minute_costs_nothing(junk: dict[str, Any]) -> None:
    costs = Costs()
    costs.add(junk)
    assert not costs.minutes and costs.currency == ""


def test_a_run_says_what_it_cost_in_the_unit_of_the_price_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = result(tmp_path, facts=spent(minute(0, 2.0), minute(1, 3.0), minute(9, 1.0)))
    told = document(made)["cost"]
    assert (told["currency"], told["total"], told["versions"], told["per_version"]) == ("EUR", 6.0, 2, 2.0)
    assert told["per_point"]["cost"] == pytest.approx(4.0 / 83)  # from 0.10 to 0.93, by two versions
    summarize(made, Output(), report=None)
    shown = capsys.readouterr().out
    line = "6.00 EUR in all, 2.00 EUR a version, 0.048 EUR for each point of accuracy gained"
    assert f"cost       {line}" in shown
    page = render(made, command=COMMAND)
    assert "6.00 EUR" in page and "cost of a point of accuracy" in page


def test_where_nothing_is_told_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = result(tmp_path)
    summarize(made, Output(), report=None)
    assert "cost" not in capsys.readouterr().out.replace("cost of", "")
    assert document(made)["cost"] is None and spending_line(None, "r2") == ""
