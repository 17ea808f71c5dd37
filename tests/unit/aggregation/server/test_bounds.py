"""What honest updates come to is inside the bound, whatever codec, clip and weight; and the bound is near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregation import codecs
from aggregation.codecs import CODECS, CodecName
from aggregation.layout import Layout
from aggregation.merges import Bucket
from aggregation.policy.checks import MAGNITUDE_MAX
from aggregation.server.bounds import beyond_bound, largest_sum, sum_bound
from tests import factories

LAYOUT = Layout.of([("w", (5,))])


def summed(codec: CodecName, norm_clip: float, exponent: int, size: float, weights: list[int]) -> int:
    """The largest sum of a weight that updates come to which are all in one element, as the fold adds them."""
    sums = np.zeros(LAYOUT.sum_elements, dtype=np.int64)
    values = np.array([0, 0, size, 0, 0], dtype=np.float32)
    for weight in weights:
        tensors = codecs.encode_delta(values, LAYOUT, codec, np.random.default_rng(1))
        delta = codecs.view_delta(
            codec, [one.data for one in tensors], tuple(one.scale for one in tensors), LAYOUT
        )
        measured = codecs.measure(delta, LAYOUT)
        clip = norm_clip / measured.norm if measured.norm > norm_clip else 1.0
        codecs.accumulate_into(
            sums, delta, measured, LAYOUT, weight=weight / 65536, clip=clip, exponent=exponent
        )
    return largest_sum(sums)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("exponent", [8, 24, 40])
@pytest.mark.parametrize("norm_clip", [0.3, 1.0, 7.7])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_updates_come_to_is_inside_and_near_the_bound(
    codec: CodecName, exponent: int, norm_clip: float, sign: float
) -> None:
    policy = factories.policy(
        updates={"norm_clip": norm_clip, "norm_max": 1e6}, fixed_point={"exponent": exponent}
    )
    weights = [65536, 65536, 30_000, 1, 46_341]
    bound = sum_bound(policy, accepted=len(weights), weight_total=sum(weights))
    for size in (norm_clip / 3, norm_clip, 5.0, 1000.0):
        assert summed(codec, norm_clip, exponent, sign * size, weights) <= bound
    reached = summed(codec, norm_clip, exponent, sign * 1000.0, weights)
    assert bound - reached <= len(weights) * 2 * (1 + MAGNITUDE_MAX) + 2 + (bound >> 49)


def test_a_window_that_accepted_nothing_reaches_nothing() -> None:
    policy = factories.policy()
    assert sum_bound(policy, accepted=0, weight_total=0) == 1
    assert largest_sum(np.array([3, -(2**63) + 1], dtype=np.int64)) == 2**63 - 1
    assert largest_sum(np.zeros(0, dtype=np.int64)) == 0


def test_each_bucket_is_held_against_what_stands_in_it_and_buffers_do_not_count() -> None:
    policy = factories.policy(format="fluvial/policy/v4", merge={"kind": "krum", "buckets": 3})
    layout = factories.BUFFERED
    size = layout.trainable.parameters
    sums = np.zeros(layout.sum_elements_of(3), dtype=np.int64)
    one = replace(
        factories.aggregate("eu", 0, 0),
        accepted=3,
        weight_total=3 << 16,
        buckets=(Bucket(), Bucket(1, 1 << 16), Bucket(2, 2 << 16)),
    )
    bound = sum_bound(policy, accepted=1, weight_total=1 << 16)
    sums[3 * size :] = 1 << 62
    sums[size], sums[2 * size] = bound, -bound - 1
    assert beyond_bound(one, sums, policy, layout) is None
    sums[size] += 1
    assert beyond_bound(one, sums, policy, layout) == (bound + 1, bound)
    sums[size - 1] = 2
    assert beyond_bound(one, sums, policy, layout) == (2, 1)


def test_control_variates_are_held_against_a_clip_of_their_own() -> None:
    policy = factories.policy(format="fluvial/policy/v6", control={"norm_clip": 0.01})
    layout = factories.BUFFERED.with_control()
    one = replace(factories.aggregate("eu", 0, 0), accepted=3, weight_total=3 << 16)
    bound = sum_bound(policy, accepted=3, weight_total=3 << 16, norm_clip=0.01)
    assert bound < sum_bound(policy, accepted=3, weight_total=3 << 16)
    sums = np.zeros(layout.sum_elements, dtype=np.int64)
    sums[-1] = -bound
    assert beyond_bound(one, sums, policy, layout) is None
    sums[-1] -= 1
    assert beyond_bound(one, sums, policy, layout) == (bound + 1, bound)
