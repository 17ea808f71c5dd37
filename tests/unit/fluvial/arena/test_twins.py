"""What every naive twin of a paper's rule keeps to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fluvial.arena.twins import TWINS
from fluvial.arena.twins.shape import Batch, Combined

if TYPE_CHECKING:
    from numpy.typing import NDArray

K, P = 11, 30
HUGE = 1e6

every_twin = pytest.mark.parametrize("name", list(TWINS))


def batch_of(updates: NDArray[np.float64], order: NDArray[np.int64] | None = None) -> Batch:
    order = np.arange(len(updates)) if order is None else order
    weights, staleness = np.linspace(0.5, 1.0, K)[order], np.arange(K)[order] % 2
    return Batch(
        updates=updates[order],
        weights=weights,
        staleness=staleness,
        devices=tuple(f"a-{device}" for device in order),
        guide=np.ones(P),
        rng=np.random.default_rng(4),
    )


def honest() -> NDArray[np.float64]:
    return 1.0 + np.random.default_rng(1).normal(0.0, 0.3, (K, P))


def combined(name: str, batch: Batch) -> Combined:
    found = TWINS[name]().combine(batch)
    assert found.mean.shape == (P,) and found.counted.shape == (len(batch.updates),)
    assert np.isfinite(found.mean).all() and (found.counted >= 0.0).all()
    return found


@every_twin
def test_the_order_of_the_updates_does_not_matter_where_a_rule_draws_nothing(name: str) -> None:
    one = combined(name, batch_of(honest()))
    other = combined(name, batch_of(honest(), np.random.default_rng(2).permutation(K)))
    assert np.allclose(one.mean, other.mean) == TWINS[name].symmetric


@every_twin
def test_equal_updates_give_that_update(name: str) -> None:
    equal = np.tile(honest()[0], (K, 1))
    mean = combined(name, batch_of(equal)).mean
    if TWINS[name].fair:
        assert np.allclose(mean, equal[0])
    else:  # it takes the root's size, not the updates'
        assert np.allclose(mean / np.linalg.norm(mean), equal[0] / np.linalg.norm(equal[0]))
        assert np.linalg.norm(mean) == pytest.approx(np.linalg.norm(np.ones(P)))


@every_twin
def test_one_huge_update_moves_every_rule_but_the_mean_a_little_only(name: str) -> None:
    updates = honest()
    updates[3] = -HUGE
    off = np.linalg.norm(combined(name, batch_of(updates)).mean - 1.0)
    assert (off < P) == TWINS[name].breakdown


@every_twin
def test_a_single_update_is_a_buffer_too(name: str) -> None:
    alone = Batch(
        np.ones((1, P)), np.ones(1), np.zeros(1, np.int64), ("a-0",), np.ones(P), np.random.default_rng(0)
    )
    assert np.allclose(combined(name, alone).mean, 1.0)


@pytest.mark.parametrize("name", [name for name, twin in TWINS.items() if twin.needs_root])
def test_a_rule_with_a_root_leaves_out_what_is_against_it(name: str) -> None:
    updates = honest()
    updates[:3] *= -1.0
    found = combined(name, batch_of(updates))
    assert not found.counted[:3].any() and found.counted[3:].all()


def test_every_twin_cites_where_it_is_described() -> None:
    assert all(
        any(year.isdigit() for year in twin.source.split()) or "20" in twin.source for twin in TWINS.values()
    )
    assert all(twin.name == name for name, twin in TWINS.items())
