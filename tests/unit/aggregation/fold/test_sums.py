"""A window's sums: exact, in fixed point, and the same bits in any order of the same updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.fold.rejections import ACCEPTED
from tests import factories
from tests.factories import LAYOUT, Site, barrier, devices, encoded, policy, state_of, update

if TYPE_CHECKING:
    import random

    from aggregation.codecs import CodecName
    from aggregation.fold.events import Update, WindowClosed


def sums_of(window: WindowClosed) -> bytes:
    assert window.sums is not None
    return window.sums.tobytes()


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_any_order_of_the_same_updates_gives_the_same_bits(rng: random.Random, count: int) -> None:
    rules = policy(window={"updates_max": count}, updates={"norm_clip": 0.3}, anomaly={"enabled": False})
    codecs: list[CodecName] = [rng.choice(["int8", "float32"]) for _ in range(count)]
    bases = [rng.randrange(3) for _ in range(count)]
    updates = [update(name, seed=n, base=bases[n], codec=codecs[n]) for n, name in enumerate(devices(count))]
    results = []
    for _ in range(3):
        site = Site(state_of(rules))
        for version in (1, 2):
            site.fold(barrier(version, rules))
        for one in updates:
            assert site.fold(one).outcome == ACCEPTED
        (window,) = site.closed
        results.append((sums_of(window), window.weight_total, window.staleness_total, window.counts))
        rng.shuffle(updates)
    assert results[0] == results[1] == results[2]


def test_the_sums_are_the_weighted_clipped_deltas_in_fixed_point() -> None:
    rules = policy(window={"updates_max": 6}, updates={"norm_clip": 0.2}, fixed_point={"exponent": 40})
    site = Site(state_of(rules))
    site.fold(barrier(1, rules))
    expected = np.zeros(LAYOUT.parameters)
    for n, name in enumerate(devices(6)):
        tensors = encoded(factories.delta(n), "float32")
        site.fold(update(name, base=n % 2, codec="float32", tensors=tensors))
        values = factories.delta(n).astype(np.float64)
        expected += values * min(1.0, 0.2 / float(np.linalg.norm(values))) / np.sqrt(1 + (1 - n % 2))
    (window,) = site.closed
    assert window.sums is not None
    # weights are rounded to 1/65536
    assert window.sums / 2.0**40 == pytest.approx(expected, abs=1e-5)


def test_contributors_bind_order_weight_and_signature() -> None:
    def contributors(updates: list[Update]) -> str:
        site = Site(state_of(policy(window={"updates_max": 2})))
        for one in updates:
            site.fold(one)
        return site.closed[0].contributors_sha256

    first, second = update("d-1"), update("d-2")
    forged = update("d-2", signature=b"other")
    assert len({contributors(u) for u in ([first, second], [second, first], [first, forged])}) == 3
