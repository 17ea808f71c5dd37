"""A look that fails is told, keeps what was known, and opens everything again until it works."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from aggregation.errors import ConnectionProblem
from fluvial.console.threads import NOT_ASKED, Looker, OpenAgain, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 120.0


class Source:
    """Somebody who answers, or does not."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.asked = 0
        self.closed = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[], int]]:
        try:
            yield self.look
        finally:
            self.closed += 1

    def look(self) -> int:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        return self.asked


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_outage_is_told_and_ends_by_itself() -> None:
    source = Source()
    looker = Looker("source", source.open, every_s=0.01)
    assert looker.seen.reason == NOT_ASKED
    looker.start()
    until(lambda: looker.seen.value is not None)
    source.problem = ConnectionProblem("FLV-3100", "no broker answers")
    until(lambda: looker.seen.reason == "no broker answers")
    known = looker.seen.value
    assert known is not None and known < source.asked, "what was known stays"
    source.problem = None
    until(lambda: looker.seen.reason == "" and looker.seen.value != known)
    looker.end()
    looker.join(LIMIT_S)
    assert source.closed == looker.opened == 2


def test_a_defect_in_a_look_is_no_end_of_it() -> None:
    source = Source()
    source.problem = KeyError("oops")
    looker = Looker("source", source.open, every_s=0.01)
    looker.start()
    until(lambda: "KeyError" in looker.seen.reason)
    source.problem = None
    until(lambda: looker.seen.reason == "")
    looker.end()
    looker.join(LIMIT_S)


def test_what_has_to_be_opened_again_is_no_outage() -> None:
    source = Source()
    source.problem = OpenAgain()
    looker = Looker("source", source.open, every_s=0.01)
    looker.start()
    until(lambda: looker.opened >= 3)
    assert looker.seen.reason == NOT_ASKED
    looker.end()
    looker.join(LIMIT_S)


def test_a_source_that_hangs_is_away_after_a_while() -> None:
    assert Seen(1, 1000, "").problem(8000) == ""
    assert Seen(1, 1000, "").problem(10_000) == "no answer for 9 s"
