"""Divisors: what the weighted sum of a version is divided by."""

from __future__ import annotations

from fractions import Fraction

import pytest

from aggregation.errors import UsageProblem
from aggregation.weights.divisors import DIVISORS, divisor_of
from aggregation.weights.staleness import WEIGHT_ONE
from tests.conformance.weights import DivisorLaws


class TestByUpdates(DivisorLaws):
    name = "updates"

    def naive(self, updates: int, weight_total: int) -> Fraction:
        return Fraction(updates)


class TestByWeights(DivisorLaws):
    name = "weights"

    def naive(self, updates: int, weight_total: int) -> Fraction:
        return Fraction(weight_total, WEIGHT_ONE)


def test_every_divisor_is_held_to_the_laws() -> None:
    assert {laws.name for laws in DivisorLaws.__subclasses__()} == set(DIVISORS)


def test_an_unknown_divisor_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match=f"'examples', the known ones are {', '.join(DIVISORS)}"):
        divisor_of("examples", updates=1, weight_total=1)
