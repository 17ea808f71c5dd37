"""Buckets of a window: which update stands in which, that they come to the plain sums, and what the window says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.fold.events import WindowClosed
from aggregation.fold.rejections import ACCEPTED
from aggregation.merges import Bucket, bucket_of
from aggregation.policy import Policy
from schemas.windows import encode_window
from tests.factories import BUFFERED, Site, barrier, devices, model_sha, policy, sha, state_of, tick, update

BUCKETS = 4


def rules(buckets: int = BUCKETS, **sections: Any) -> Policy:
    """A policy of v4 with so many buckets; one is the mean."""
    merge = {"kind": "krum", "buckets": buckets} if buckets > 1 else {}
    return policy(format="fluvial/policy/v4", shares={"per_version": 0}, merge=merge, **sections)


def closed(one: Policy, names: dict[str, int], *, version: int = 0) -> WindowClosed:
    """The window of an update of each device, by its seed, while ``version`` is the newest."""
    site = Site(state_of(one, layout=BUFFERED))
    if version:
        site.fold(barrier(version, one))
    for name, seed in names.items():
        site.fold(update(name, base=version, seed=seed, layout=BUFFERED))
    site.fold(tick(site.state.window.first_offset))
    return site.closed[-1]


def named(count: int) -> dict[str, int]:
    """So many devices, and a seed of each."""
    return {name: seed for seed, name in enumerate(devices(count))}


def rows_of(window: WindowClosed, buckets: int) -> npt.NDArray[np.int64]:
    assert window.sums is not None
    size = BUFFERED.trainable.parameters
    assert window.sums.size == BUFFERED.sum_elements_of(buckets)
    return window.sums[: buckets * size].reshape(buckets, size)


@pytest.mark.parametrize("version", [0, 1])
def test_each_update_stands_in_the_bucket_that_model_and_device_give(version: int) -> None:
    names = named(40)
    window = closed(rules(), names, version=version)
    rows = rows_of(window, BUCKETS)
    assert window.buckets is not None
    for bucket in range(BUCKETS):
        here = {n: seed for n, seed in names.items() if bucket_of(model_sha(version), n, BUCKETS) == bucket}
        assert here
        assert window.buckets[bucket] == Bucket(len(here), len(here) << 16)
        alone = closed(rules(1), here, version=version)
        assert rows[bucket].tobytes() == rows_of(alone, 1)[0].tobytes()


def test_the_buckets_come_to_the_sums_of_one() -> None:
    names = named(9)
    several, single = closed(rules(), names), closed(rules(1), names)
    assert rows_of(several, BUCKETS).sum(axis=0).tobytes() == rows_of(single, 1)[0].tobytes()
    size = BUFFERED.trainable.parameters
    assert several.sums is not None and single.sums is not None
    assert several.sums[BUCKETS * size :].tobytes() == single.sums[size:].tobytes()
    assert (single.buckets, several.contributors_sha256) == (
        (Bucket(9, 9 << 16),),
        single.contributors_sha256,
    )


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(8)))
def test_any_order_of_the_same_updates_gives_the_same_bits(order: list[int]) -> None:
    names = devices(8)

    def window(places: list[int]) -> tuple[bytes, object]:
        site = Site(state_of(rules(), layout=BUFFERED))
        for place in places:
            assert site.fold(update(names[place], seed=place, layout=BUFFERED)).outcome == ACCEPTED
        site.fold(tick(0))
        (one,) = site.closed
        assert one.sums is not None
        return one.sums.tobytes(), one.buckets

    assert window(order) == window(list(range(8)))


def test_a_window_that_accepted_nothing_says_its_empty_buckets() -> None:
    site = Site(state_of(rules()))
    site.append(b"junk")
    site.fold(tick(0))
    (window,) = site.closed
    assert (window.sums, window.buckets) == (None, (Bucket(),) * BUCKETS)
    encoded = encode_window(site.state, window)
    assert (encoded.aggregate.buckets, encoded.aggregate.bucket_count) == ((Bucket(),) * BUCKETS, BUCKETS)


@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
def test_a_window_of_an_older_policy_says_nothing_of_buckets(name: str) -> None:
    site = Site(state_of(policy(format=f"fluvial/policy/{name}")))
    site.fold(update("d-0001"))
    site.fold(tick(0))
    (window,) = site.closed
    assert window.buckets is None
    assert encode_window(site.state, window).aggregate.buckets == ()


def test_a_barrier_that_changes_the_buckets_closes_the_window_before() -> None:
    site, after = Site(state_of(rules())), rules(3)
    site.fold(update("d-0001"))
    site.fold(barrier(1, after))
    site.fold(update("d-0002", base=1))
    site.fold(tick(site.state.window.first_offset))
    assert [len(one.buckets or ()) for one in site.closed] == [BUCKETS, 3]


def test_devices_are_mixed_anew_in_each_version_and_spread_evenly() -> None:
    names = [f"device-{n}" for n in range(4000)]
    first, second = ([bucket_of(sha(model), name, 8) for name in names] for model in ("one", "other"))
    for found in (first, second):
        assert all(400 < found.count(bucket) < 600 for bucket in range(8))
    together = sum(a == b for a, b in zip(first, second, strict=True))
    assert 400 < together < 600
