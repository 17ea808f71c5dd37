"""Buckets and merges by the contract's vectors, which the independent checker wrote: the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation.merges import Bucket, bucket_of, merge_named
from aggregation.policy import MergePolicy
from aggregation.server.buckets import gram_of, one_of
from aggregation.server.totals import Total, WindowSums, add_windows

VECTORS = Path(__file__).parents[4] / "schemas" / "vectors"
ROBUST: list[dict[str, Any]] = json.loads((VECTORS / "robust.json").read_text())["cases"]


def total_of(case: dict[str, Any]) -> Total:
    windows = [
        WindowSums(
            np.array([int(one) for one in said["sums"].split()], dtype=np.int64),
            sum(one["weight"] for one in said["buckets"]),
            said["weight"],
            tuple(Bucket(**one) for one in said["buckets"]),
        )
        for said in case["windows"]
        if said["weight"]
    ]
    return add_windows(windows, weights=case["weights"], elements=case["weights"])


@pytest.mark.parametrize("case", ROBUST, ids=lambda case: str(case["name"]))
def test_a_version_is_merged_to_the_same_sums(case: dict[str, Any]) -> None:
    total, rules = total_of(case), MergePolicy(**case["merge"])
    if "bucket_weights" in case:
        assert total.bucket_weights == case["bucket_weights"]
    if "coefficients" in case:
        present = [place for place, weight in enumerate(total.bucket_weights) if weight]
        weights = [total.bucket_weights[place] for place in present]
        gram = gram_of(total.rows(case["weights"]), present, weights)
        assert gram == case.get("gram", gram)
        assert merge_named(rules.kind).coefficients(rules, gram, weights) == case["coefficients"]
    found = one_of(total, case["weights"], rules)
    assert found.tolist() == [int(one) for one in case["total"].split()]


def test_every_device_is_in_the_same_bucket() -> None:
    for case in json.loads((VECTORS / "buckets.json").read_text())["cases"]:
        named = case["model_sha256"], case["device_id"]
        assert {str(n): bucket_of(*named, int(n)) for n in case["buckets"]} == case["buckets"]
