"""What histograms so many accepted updates can have, where norms count by their squares and where they do not."""

from __future__ import annotations

import pytest

from aggregation.defences import Histograms
from aggregation.defences.usual import SHARE_UNIT, SQUARES_MAX
from stream_apps.merger.fitting import histograms_fit

ACCEPTED = 3
ALL = ((1, ACCEPTED * SHARE_UNIT),)


@pytest.mark.parametrize(
    ("norms", "by_updates", "by_squares"),
    [
        (ACCEPTED * SHARE_UNIT, True, True),
        (ACCEPTED * SHARE_UNIT + 1, False, True),
        (ACCEPTED * SHARE_UNIT * SQUARES_MAX, False, True),
        (ACCEPTED * SHARE_UNIT * SQUARES_MAX + 1, False, False),
        ((1 << 63) - 1, False, False),
    ],
)
def test_norms_count_no_more_than_they_may(norms: int, *, by_updates: bool, by_squares: bool) -> None:
    found = Histograms(norms=((8200, norms),), shares=ALL)
    assert histograms_fit(found, ACCEPTED) == by_updates
    assert histograms_fit(found, ACCEPTED, by_squares=True) == by_squares


@pytest.mark.parametrize("name", ["cosines", "shares"])
def test_nothing_but_norms_counts_by_squares(name: str) -> None:
    more = {"shares": ALL} | {name: ((1, ACCEPTED * SHARE_UNIT * 2),)}
    assert not histograms_fit(Histograms(**more), ACCEPTED, by_squares=True)
