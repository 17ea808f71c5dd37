"""The laws of staleness kinds and of divisors. Every member inherits them and says its formula."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import pytest

from aggregation.weights.divisors import DIVISORS, divisor_of
from aggregation.weights.staleness import STALENESS_KINDS, WEIGHT_ONE, staleness_weights


@dataclass(frozen=True)
class Staleness:
    """The parameters of a policy's ``[staleness]`` that a kind may read."""

    exponent: float = 0.5
    hinge_versions: int = 4
    hinge_slope: float = 1.0


PARAMETERS = {
    "defaults": {},
    "flat": {"exponent": 0.0, "hinge_slope": 0.0},
    "steep": {"exponent": 2.0, "hinge_slope": 100.0},
    "from the first version on": {"hinge_versions": 0},
    "never": {"hinge_versions": 10_000},
}


class StalenessLaws:
    """What holds for every kind. ``naive`` is its s(tau), in Python floats."""

    name: ClassVar[str]

    @abstractmethod
    def naive(self, tau: int, parameters: Staleness) -> float: ...

    def test_it_stands_in_the_table_under_its_own_name(self) -> None:
        assert STALENESS_KINDS[self.name].name == self.name

    @pytest.mark.parametrize("which", PARAMETERS)
    def test_its_table_is_its_formula_in_integers(self, which: str) -> None:
        parameters = replace(Staleness(), **PARAMETERS[which])  # type: ignore[arg-type]
        weights = staleness_weights(self.name, parameters, versions_max=50)
        assert all(type(weight) is int for weight in weights)
        assert weights == tuple(round(WEIGHT_ONE * self.naive(tau, parameters)) for tau in range(51))

    @pytest.mark.parametrize("which", PARAMETERS)
    def test_a_fresh_update_counts_fully_and_none_counts_more_or_nothing(self, which: str) -> None:
        parameters = replace(Staleness(), **PARAMETERS[which])  # type: ignore[arg-type]
        weights = staleness_weights(self.name, parameters, versions_max=50)
        assert weights[0] == WEIGHT_ONE
        assert list(weights) == sorted(weights, reverse=True)
        assert weights[-1] >= 1

    @pytest.mark.parametrize("versions_max", [0, 1, 7, 10_000])
    def test_a_table_has_one_entry_for_every_allowed_staleness(self, versions_max: int) -> None:
        assert len(staleness_weights(self.name, Staleness(), versions_max=versions_max)) == versions_max + 1


class DivisorLaws:
    """What holds for every divisor. ``naive`` is its formula, exactly."""

    name: ClassVar[str]

    @abstractmethod
    def naive(self, updates: int, weight_total: int) -> Fraction: ...

    def of(self, updates: int, weight_total: int) -> float:
        return divisor_of(self.name, updates=updates, weight_total=weight_total)

    def test_it_stands_in_the_table_under_its_own_name(self) -> None:
        assert DIVISORS[self.name].name == self.name

    @pytest.mark.parametrize("updates", [1, 2, 83, 100_000_000])
    @pytest.mark.parametrize("share", [1, 3, 40_000, WEIGHT_ONE])
    def test_it_follows_its_formula(self, updates: int, share: int) -> None:
        expected = self.naive(updates, updates * share)
        assert Fraction(self.of(updates, updates * share)) == expected

    @pytest.mark.parametrize("updates", [1, 2, 83, 100_000_000])
    @pytest.mark.parametrize("share", [1, 3, 40_000, WEIGHT_ONE])
    def test_it_is_above_zero_and_never_above_the_number_of_updates(self, updates: int, share: int) -> None:
        assert 0.0 < self.of(updates, updates * share) <= updates

    @pytest.mark.parametrize("updates", [1, 2, 83])
    def test_updates_that_count_fully_are_divided_by_their_number(self, updates: int) -> None:
        assert self.of(updates, updates * WEIGHT_ONE) == updates
