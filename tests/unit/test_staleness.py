"""Staleness tables: the papers' functions, as integers, computed once."""

from __future__ import annotations

import math

import pytest

from aggregation.weights.staleness import WEIGHT_ONE, StalenessKind, staleness_weights


def table(kind: StalenessKind, versions_max: int = 20, exponent: float = 0.5) -> tuple[int, ...]:
    return staleness_weights(
        kind, versions_max=versions_max, exponent=exponent, hinge_versions=4, hinge_slope=2.0
    )


def test_constant_counts_every_update_fully() -> None:
    assert table("constant") == (WEIGHT_ONE,) * 21


def test_polynomial_one_half_is_fedbuffs_weight() -> None:
    for tau, weight in enumerate(table("polynomial")):
        assert weight == round(WEIGHT_ONE / math.sqrt(1 + tau))


def test_hinge_is_flat_and_then_falls() -> None:
    weights = table("hinge")
    assert weights[:5] == (WEIGHT_ONE,) * 5
    assert weights[5:] == tuple(round(WEIGHT_ONE / (2.0 * (tau - 4) + 1)) for tau in range(5, 21))


@pytest.mark.parametrize("kind", ["constant", "polynomial", "hinge"])
def test_weights_never_rise_and_never_exceed_one(kind: StalenessKind) -> None:
    weights = table(kind)
    assert list(weights) == sorted(weights, reverse=True)
    assert weights[0] == WEIGHT_ONE


def test_a_table_has_one_entry_for_every_allowed_staleness() -> None:
    assert len(table("polynomial", versions_max=0)) == 1
    assert len(table("polynomial", versions_max=7)) == 8
