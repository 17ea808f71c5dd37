"""Reading a verdicts topic that a crash has written twice: each offset once, in whatever order they come."""

from __future__ import annotations

import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold.rejections import ACCEPTED, AGGREGATED, CONTROL, OUTCOMES, PARKED, RejectionReason
from fluvial.reading.explanations import explain
from fluvial.reading.verdicts import MISSING_MAX, Once


@pytest.mark.parametrize(
    ("first", "offsets", "new"),
    [
        (0, [0, 1, 2], [0, 1, 2]),
        (5, [5, 6, 5, 6, 7], [5, 6, 7]),
        (0, [0, 3, 1, 2, 1, 3, 4], [0, 3, 1, 2, 4]),
        (0, [2, 2, 0, 0, 1], [2, 0, 1]),
    ],
    ids=["in order", "a window twice", "one that was sent again late", "out of order and twice"],
)
def test_each_offset_counts_once(first: int, offsets: list[int], new: list[int]) -> None:
    once = Once(first)
    assert [offset for offset in offsets if once.is_new(offset)] == new
    assert not once.missing


def test_a_hole_that_cannot_be_remembered_is_an_error() -> None:
    once = Once(0)
    with pytest.raises(IntegrityProblem) as caught:
        once.is_new(MISSING_MAX + 1)
    assert caught.value.error_id == "FLV-6206"
    assert once.next_offset == 0 and not once.missing


@pytest.mark.parametrize("rejection", list(RejectionReason), ids=lambda rejection: rejection.outcome)
def test_every_rejection_is_explained_with_its_page_and_a_hint(rejection: RejectionReason) -> None:
    explanation = explain(rejection.outcome)
    assert explanation.error_id == rejection.error_id and explanation.hint
    assert explanation.page == f"docs/errors/{rejection.error_id}.md"


def test_what_is_no_rejection_has_no_page() -> None:
    assert [explain(outcome).page for outcome in (ACCEPTED, CONTROL, PARKED, None, "from the future")] == [
        ""
    ] * 5
    refused = {rejection.outcome for rejection in RejectionReason}
    assert set(OUTCOMES) == {ACCEPTED, CONTROL, PARKED, AGGREGATED} | refused
