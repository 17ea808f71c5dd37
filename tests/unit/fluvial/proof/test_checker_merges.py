"""The checker's buckets and merges: the bits of the code and of its vectors, and the papers' algorithms on vectors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.merges import Bucket
from aggregation.policy import MergePolicy
from aggregation.server.buckets import one_of
from aggregation.server.totals import WindowSums, add_windows
from fluvial.proof.checker import late, merges
from fluvial.proof.checker.buckets import Buckets, bucket_of, weights_in
from tests.vectors.__main__ import FOLDER

Floats = npt.NDArray[np.float64]
KINDS = [kind for kind, rule in merges.MERGES.items() if rule is not None]


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / name).read_text())["cases"]
    return found


def whole(text: str) -> npt.NDArray[np.int64]:
    return np.array([int(one) for one in text.split()], dtype=np.int64)


def test_a_device_is_in_the_bucket_of_the_vectors() -> None:
    for case in cases("buckets.json"):
        for count, bucket in case["buckets"].items():
            assert bucket_of(case["model_sha256"], case["device_id"], int(count)) == bucket


@pytest.mark.parametrize("case", cases("robust.json"), ids=lambda case: case["name"])
def test_merges_come_to_the_bits_of_the_vectors(case: dict[str, Any]) -> None:
    sums = late.Sums(case["weights"], 0)
    for window in case["windows"]:
        buckets = [one["weight"] for one in window["buckets"]]
        if window["weight"]:
            sums.add(whole(window["sums"]), buckets, sum(buckets), window["weight"])
    assert sums.combined({"merge": case["merge"]}).tolist() == whole(case["total"]).tolist()
    if "coefficients" in case:
        (only,) = sums.buckets.values()
        assert only.weights == case["bucket_weights"]
        kept = [b for b, weight in enumerate(only.weights) if weight]
        weights = [only.weights[b] for b in kept]
        g = merges.gram_of([only.parts[b] for b in kept], weights)
        assert g == case.get("gram", g)
        rule, f = (
            merges.MERGES[case["merge"]["kind"]],
            merges.byzantine_of(case["merge"]["byzantine"], len(g)),
        )
        assert rule is not None and rule(g, weights, f, case["merge"]["iterations"]) == case["coefficients"]


@st.composite
def versions(draw: st.DrawFn) -> tuple[list[WindowSums], MergePolicy]:
    """Windows of a version, most of one number of buckets, with ties, empty buckets, and sums of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    size, buckets = draw(st.sampled_from([1, 2, 7, 300])), draw(st.integers(3, 12))
    reach, windows = 1 << draw(st.sampled_from([1, 2, 20, 33, 54])), []
    for _ in range(draw(st.integers(1, 4))):
        many = buckets if rng.random() < 0.9 else 3
        weights = rng.integers(1, 1 << int(rng.integers(1, 40)), many) * (rng.random(many) < 0.8)
        rows = rng.integers(-reach, reach, (many, size), dtype=np.int64) * (weights[:, None] > 0)
        said = tuple(Bucket(int(weight > 0), int(weight)) for weight in weights)
        left = int(rng.choice([1, 24105, 46341, 65536]))
        windows.append(WindowSums(rows.reshape(-1), int(weights.sum()), left, said))
    kind, most = draw(st.sampled_from(KINDS)), (buckets - 3) // 2
    return windows, MergePolicy(kind, buckets, draw(st.integers(0, most)), draw(st.sampled_from([1, 8, 64])))


@settings(deadline=None, max_examples=60)
@given(versions())
def test_the_code_and_the_checker_merge_any_version_to_the_same_bits(
    version: tuple[list[WindowSums], MergePolicy],
) -> None:
    windows, policy = version
    size = windows[0].sums.size // len(windows[0].buckets)
    sums = late.Sums(size, 0)
    for one in windows:
        sums.add(one.sums, [bucket.weight for bucket in one.buckets], one.weight_total, one.weight)
    rule = {name: getattr(policy, name) for name in policy.__struct_fields__}
    total = add_windows(windows, weights=size, elements=size)
    assert sums.combined({"merge": rule}).tolist() == one_of(total, size, policy).tolist()


# -- the papers, on means that are there


def weiszfeld(points: Floats, p: Floats, iterations: int) -> Floats:
    """RFA, algorithm 2: v = Σ β x / Σ β with β = p / max(least, |x − v|), from the weighted mean on."""
    least = merges.SMOOTHING * np.sqrt(p @ (points**2).sum(axis=1))
    v: Floats = p @ points
    for _ in range(iterations):
        beta = p / np.maximum(least, np.linalg.norm(points - v, axis=1))
        v = beta @ points / beta.sum()
    return v


def nearest(points: Floats, b: int, count: int) -> list[int]:
    order = np.argsort(np.linalg.norm(points - points[b], axis=1), kind="stable")
    return [int(one) for one in order[:count]]


def expected(kind: str, points: Floats, weights: Floats, f: int, iterations: int) -> Floats:
    """The mean that the paper's algorithm makes of float64[n, W]."""
    n = len(points)
    if kind == "geometric_median":
        return weiszfeld(points, weights / weights.sum(), iterations)
    if kind == "krum":
        apart = ((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
        scores = np.sort(apart, axis=1)[:, 1 : n - f - 1].sum(axis=1)
        kept = np.argsort(scores, kind="stable")[: n - f]
        made: Floats = weights[kept] @ points[kept] / weights[kept].sum()
        return made
    mixed = np.array([points[nearest(points, b, n - f)].mean(axis=0) for b in range(n)])
    return weiszfeld(mixed, np.full(n, 1 / n), iterations)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.integers(0, 1 << 20), st.integers(3, 10), st.integers(0, 3))
def test_inner_products_give_what_the_papers_have_on_vectors(
    kind: str, seed: int, buckets: int, byzantine: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 5, buckets) * 65536
    points = rng.standard_normal((buckets, 9)) + np.where(rng.random(buckets) < 0.2, 5.0, 1.0)[:, None]
    parts = [np.rint(points[b] * float(weights[b]) * 2.0**20).astype(np.int64) for b in range(buckets)]
    rule = {"kind": kind, "byzantine": byzantine, "iterations": 12}
    made = merges.combined({"merge": rule}, parts, weights.tolist())
    f = merges.byzantine_of(byzantine, buckets)
    assert f <= (buckets - 3) // 2 and f in {byzantine, (buckets - 3) // 2}
    mean = expected(kind, points, weights.astype(np.float64), f, 12)
    scale = float(weights.sum()) * 2.0**20
    assert np.allclose(made / scale, mean, rtol=1e-6, atol=1e-6)


# -- windows


def test_a_window_says_what_every_bucket_counts() -> None:
    one = Buckets()
    for bucket, weight in ((2, 65536), (0, 1), (2, 46341)):
        one.add(bucket, weight)
    policy = {"merge": {"kind": "krum", "buckets": 4}}
    record = one.record(policy)
    assert [(row["accepted"], row["weight"]) for row in record["buckets"]] == [
        (1, 1),
        (0, 0),
        (2, 111877),
        (0, 0),
    ]
    assert weights_in(record) == [1, 0, 111877, 0]
    assert one.record({}) == {} and weights_in({"weight_total": 7}) == [7]


def test_windows_of_other_numbers_of_buckets_are_added() -> None:
    sums, rows = late.Sums(1, 0), [(3, [10, 20, 3000]), (4, [1, 2, 3, 4])]
    for count, values in rows:
        sums.add(np.array(values, dtype=np.int64), [65536] * count, 65536 * count, 65536)
    assert sums.combined({"merge": {"kind": "krum", "byzantine": 0, "iterations": 8}}).tolist() == [3040]
