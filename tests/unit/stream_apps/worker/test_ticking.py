"""When a partition asks for the end of its open window: a table of what counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest

from aggregation.fold.state import OpenWindow
from stream_apps.worker.ticking import REFUSALS_S, TICK_REPEAT_S, AskedTick, tick_due

SECONDS_MAX = 5.0
FIRST_OFFSET = 40


@dataclass(frozen=True)
class Case:
    """A window of accepted updates that is just old enough, unless something is said otherwise."""

    age_s: float = SECONDS_MAX
    counts: tuple[tuple[str, int], ...] = (("accepted", 1), ("duplicate", 2))
    seconds_max: float = SECONDS_MAX
    asked: AskedTick | None = None
    on_its_way: bool = False

    def due(self) -> bool:
        window = OpenWindow(FIRST_OFFSET, counts=Counter(dict(self.counts)))
        return tick_due(
            window,
            self.asked,
            now_s=NOW_S,
            window_since_s=NOW_S - self.age_s,
            seconds_max=self.seconds_max,
            on_its_way=self.on_its_way,
        )


NOW_S = 4096.0  # sums and differences of the ages below are exact
READY = Case()
REFUSALS = Case(age_s=REFUSALS_S, counts=(("duplicate", 2),))


def asked_before(seconds: float, first_offset: int = FIRST_OFFSET) -> Case:
    return replace(READY, asked=AskedTick(first_offset, NOW_S - seconds))


@pytest.mark.parametrize(
    ("case", "due"),
    [
        pytest.param(READY, True, id="exactly as old as the policy allows"),
        pytest.param(replace(READY, age_s=SECONDS_MAX - 0.125), False, id="a moment younger"),
        pytest.param(replace(READY, age_s=SECONDS_MAX + 100), True, id="much older"),
        pytest.param(replace(READY, counts=()), False, id="nothing in it"),
        pytest.param(replace(READY, counts=(), age_s=1000.0), False, id="nothing in it for long"),
        pytest.param(
            replace(REFUSALS, age_s=SECONDS_MAX), False, id="refusals only, as old as others may be"
        ),
        pytest.param(
            replace(REFUSALS, age_s=REFUSALS_S - 0.125), False, id="refusals only, a moment younger"
        ),
        pytest.param(REFUSALS, True, id="refusals only, old enough for those"),
        pytest.param(
            replace(REFUSALS, seconds_max=REFUSALS_S + 8, age_s=REFUSALS_S),
            False,
            id="refusals only, and the policy allows more",
        ),
        pytest.param(
            replace(REFUSALS, seconds_max=REFUSALS_S + 8, age_s=REFUSALS_S + 8),
            True,
            id="refusals only, exactly as old as that policy allows",
        ),
        pytest.param(asked_before(0.0), False, id="asked just now"),
        pytest.param(asked_before(TICK_REPEAT_S - 0.125), False, id="asked a moment too recently"),
        pytest.param(asked_before(TICK_REPEAT_S), True, id="asked, and nothing came of it"),
        pytest.param(asked_before(0.0, FIRST_OFFSET - 1), True, id="asked just now for the window before"),
        pytest.param(replace(READY, on_its_way=True), False, id="one is on its way"),
        pytest.param(
            replace(asked_before(TICK_REPEAT_S * 9), on_its_way=True), False, id="one is on its way for long"
        ),
    ],
)
def test_a_tick_is_due(case: Case, due: bool) -> None:  # noqa: FBT001 (a table's column)
    assert case.due() is due
