"""What records of evaluations say of the evaluator: how far it is, and how many of the newest versions have none."""

from __future__ import annotations

from typing import Any

import pytest

from fluvial.console.recent import numbers_of
from fluvial.reading.evaluations import Evaluated, evaluated_of
from fluvial.reading.progress import RunFacts
from fluvial.session.progress_view import version_line

WELL: dict[str, Any] = {"loss": 0.5}
LATE: dict[str, Any] = {"loss": None, "evaluation_problem": "late", "evaluation_error_id": "FLV-6312"}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], Evaluated()),
        ([WELL, WELL], Evaluated(1)),
        ([WELL, LATE], Evaluated(1, 1, "late", "FLV-6312")),
        ([WELL, LATE, LATE], Evaluated(2, 2, "late", "FLV-6312")),
        ([LATE, LATE, WELL], Evaluated(2)),
        ([LATE], Evaluated(0, 1, "late", "FLV-6312")),
        ([WELL, {"evaluation_problem": "invented"}], Evaluated(1)),
        ([WELL, {"evaluation_problem": 7, "evaluation_error_id": 9}], Evaluated(1)),
        ([WELL, {"evaluation_problem": "failed", "evaluation_error_id": 9}], Evaluated(1, 1, "failed")),
    ],
)
def test_of_records_by_version(records: list[dict[str, Any]], expected: Evaluated) -> None:
    assert evaluated_of(dict(enumerate(records))) == expected


def test_a_document_says_how_far_behind_the_evaluator_is() -> None:
    assert Evaluated(4, 1, "late", "FLV-6312").document(7) == {
        "version": 4,
        "behind": 3,
        "without_evaluation": 1,
        "problem": "late",
        "error_id": "FLV-6312",
    }
    assert Evaluated().document(0)["version"] is None


def test_the_console_keeps_why_a_version_has_no_evaluation_and_nothing_longer() -> None:
    record = {"version": 3, "kind": "evaluation", **LATE, "text": "x" * 10_000}
    kept = numbers_of(record)
    assert evaluated_of({3: kept}) == Evaluated(3, 1, "late", "FLV-6312")
    assert "text" not in kept
    long = numbers_of({**LATE, "evaluation_error_id": "FLV-6312" * 1000})
    assert long["evaluation_error_id"] == "FLV-6312"


def test_a_runs_line_says_that_a_version_has_no_evaluation() -> None:
    facts = RunFacts()
    facts.add_evaluation({"kind": "evaluation", "version": 3, **LATE})
    facts.add_evaluation({"kind": "evaluation", "version": 4, "loss": 0.25})
    first, second = facts.curve()
    assert version_line(first, 9, "loss") == "version 3/9  not evaluated: late, see the evaluator's log"
    assert version_line(second, 9, "loss") == "version 4/9  loss 0.2500"
