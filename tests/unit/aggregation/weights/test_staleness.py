"""Staleness tables: the papers' functions, as integers, computed once."""

from __future__ import annotations

import math

import pytest

from aggregation.errors import UsageProblem
from aggregation.weights.staleness import STALENESS_KINDS, WEIGHT_ONE, staleness_weights
from tests.conformance.weights import Staleness, StalenessLaws


class TestConstant(StalenessLaws):
    name = "constant"

    def naive(self, tau: int, parameters: Staleness) -> float:
        return 1.0


class TestPolynomial(StalenessLaws):
    name = "polynomial"

    def naive(self, tau: int, parameters: Staleness) -> float:
        return math.pow(1.0 + tau, -parameters.exponent)

    def test_one_half_is_fedbuffs_weight(self) -> None:
        for tau, weight in enumerate(staleness_weights("polynomial", Staleness(), versions_max=20)):
            assert weight == round(WEIGHT_ONE / math.sqrt(1 + tau))


class TestHinge(StalenessLaws):
    name = "hinge"

    def naive(self, tau: int, parameters: Staleness) -> float:
        behind = max(0, tau - parameters.hinge_versions)
        return 1.0 / (parameters.hinge_slope * behind + 1.0)

    def test_it_is_flat_and_then_falls(self) -> None:
        weights = staleness_weights("hinge", Staleness(hinge_slope=2.0), versions_max=20)
        assert weights[:5] == (WEIGHT_ONE,) * 5
        assert weights[5:] == tuple(round(WEIGHT_ONE / (2.0 * (tau - 4) + 1)) for tau in range(5, 21))


def test_every_kind_is_held_to_the_laws() -> None:
    assert {laws.name for laws in StalenessLaws.__subclasses__()} == set(STALENESS_KINDS)


def test_an_unknown_kind_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match=f"'cosine', the known ones are {', '.join(STALENESS_KINDS)}"):
        staleness_weights("cosine", Staleness(), versions_max=3)
