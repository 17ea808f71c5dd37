"""Buckets whose sums nobody could store or read are refused before there is a task, with how many there may be."""

from __future__ import annotations

import re

import pytest

from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from aggregation.policy import Policy, policy_from_mapping
from backends.object_limits import SUMS_BYTES_MAX
from fluvial.local.window_size import check_window_size
from schemas.checkpoints import sums_bytes


def model_of(weights: int) -> Layout:
    return Layout.of([("0.weight", (weights - 10,)), ("0.bias", (10,))])


def policy_of(buckets: int) -> Policy:
    kind = "krum" if buckets > 1 else "mean"
    return policy_from_mapping({"buffer": {"updates": 64}, "merge": {"kind": kind, "buckets": buckets}})


@pytest.mark.parametrize("weights", [16_777_217, 40_000_000, 134_000_000])
def test_as_many_as_it_names_are_taken_and_one_more_is_refused(weights: int) -> None:
    with pytest.raises(UsageProblem, match=r"at most (\d+), where") as caught:
        check_window_size(model_of(weights), policy_of(32))
    assert caught.value.error_id == "FLV-2002"
    found = re.search(r"at most (\d+), where", caught.value.message)
    assert found
    most = int(found[1])
    check_window_size(model_of(weights), policy_of(most))
    assert sums_bytes(model_of(weights), most) <= SUMS_BYTES_MAX < sums_bytes(model_of(weights), most + 1)
    with pytest.raises(UsageProblem, match="FLV-2002"):
        check_window_size(model_of(weights), policy_of(most + 1))


def test_where_too_few_fit_it_names_the_merge_that_wants_one() -> None:
    with pytest.raises(UsageProblem, match='it has to be 1, with kind = "mean"'):
        check_window_size(model_of(200_000_000), policy_of(3))


@pytest.mark.parametrize(("weights", "buckets"), [(16_777_216, 32), (10**9, 1), (100, 32)])
def test_what_fits_and_one_bucket_of_any_model_are_not_refused(weights: int, buckets: int) -> None:
    check_window_size(model_of(weights), policy_of(buckets))
