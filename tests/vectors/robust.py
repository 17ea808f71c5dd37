"""Vectors of buckets and merges: where a device counts, and how the buckets of a version become one sum."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.merges import MERGES, Bucket, bucket_of
from aggregation.merges.shape import BUCKETS_MIN
from aggregation.policy import MergePolicy
from aggregation.server.buckets import gram_of, one_of
from aggregation.server.totals import WindowSums, add_windows
from tests.factories import HashRandom, devices, sha
from tests.vectors.numbers import ROBUST
from tests.vectors.writing import document, numbers, wholes

Int64Array = npt.NDArray[np.int64]
Row = tuple[int, list[int]]
"""What a bucket's updates weigh, and its sums."""
Windows = list[tuple[int, list[Row]]]
"""What lateness leaves of each window, and its buckets."""

COUNTS: Final = (1, 3, 4, 7, 8, 32)
WHOLE: Final = 65536
SIZE: Final = 5
CANCEL: Final[list[Row]] = [
    (3, [-2526, 2052, 480]),
    (7, [-4438, 6503, -2177]),
    (46341, [68399316, -74748033, 6997491]),
]
"""Three means that add up to nothing: in binary64 their mixtures' squares are a little below 0."""
UP: Final = 1 << 58


def bucket_cases() -> dict[str, Any]:
    """In which bucket of so many a device counts while a partition's version has that model."""
    odd = ["ü", "a" * 64, "d-0001.x_y", "0"]
    cases = []
    for model in (sha("model 0"), sha("model 1")):
        for device in [*devices(6), *odd]:
            buckets = {str(count): bucket_of(model, device, count) for count in COUNTS}
            cases.append({"model_sha256": model, "device_id": device, "buckets": buckets})
    return document("a version's model, a device, and its bucket of so many", cases)


def _rows(seed: int, buckets: int, *, size: int = SIZE, exponent: int = 33) -> list[Row]:
    """Buckets whose means are a common step and noise; the last one's is the opposite, and large."""
    drawn = 2.0 * HashRandom(seed).random((buckets + 1) * size).reshape(buckets + 1, size) - 1.0
    found: list[Row] = []
    for b in range(buckets):
        updates = 1 + (seed + b) % 4
        mean = drawn[-1] + 0.3 * drawn[b] if b < buckets - 1 else -3.0 * drawn[-1]
        found.append((updates * (WHOLE if b % 2 else 46341), _sums(mean * float(updates), exponent)))
    return found


def _sums(values: npt.NDArray[np.float64], exponent: int) -> list[int]:
    whole: list[int] = np.rint(values * 2.0**exponent).astype(np.int64).tolist()
    return whole


def _rule(kind: str, buckets: int, byzantine: int = 0, iterations: int = 8) -> dict[str, Any]:
    return {"kind": kind, "buckets": buckets, "byzantine": byzantine, "iterations": iterations}


def _case(name: str, rule: dict[str, Any], windows: Windows) -> dict[str, Any]:
    size = len(windows[0][1][0][1])
    said, added = [], []
    for left, rows in windows:
        flat = np.array([row for _, row in rows], dtype=np.int64).reshape(-1)
        counted = tuple(Bucket(min(weight, 1), weight) for weight, _ in rows)
        if left:
            added.append(WindowSums(flat, sum(weight for weight, _ in rows), left, counted))
        buckets = [{"accepted": one.accepted, "weight": one.weight} for one in counted]
        said.append({"buckets": buckets, "weight": left, "sums": wholes(flat)})
    total, rules = add_windows(added, weights=size, elements=size), MergePolicy(**rule)
    case: dict[str, Any] = {"name": name, "merge": rule, "weights": size, "windows": said}
    if len({len(one.buckets) for one in added}) == 1:
        case["bucket_weights"] = total.bucket_weights
        kept = [place for place, weight in enumerate(total.bucket_weights) if weight]
        if rule["kind"] in ROBUST and len(kept) >= BUCKETS_MIN:
            weights = [total.bucket_weights[place] for place in kept]
            gram = gram_of(total.rows(size), kept, weights)
            if rule["kind"] == ROBUST[0]:  # the same for all
                case["gram"] = [numbers(row) for row in gram]
            case["coefficients"] = numbers(MERGES[rule["kind"]].coefficients(rules, gram, weights))
    return case | {"total": wholes(one_of(total, size, rules))}


def _shapes() -> dict[str, tuple[dict[str, Any], Windows]]:
    """What every merge is tried with: the policy's other keys, and the windows."""
    equal: list[Row] = [(WHOLE, [7, -9, 11])] * 5
    nothing: Row = (0, [0] * SIZE)
    eight, seven = _rows(8, 8), _rows(7, 7)
    left_out = [nothing, eight[0], nothing, *eight[1:5], eight[7]]
    line: list[Row] = [(WHOLE, [at * 1000, 0]) for at in (0, 1, 2, 3, 4)]
    steps = ((3, 3), (-3, -3), (-3, -1), (3, -2), (2, 3), (2, 3), (-1, -1))
    nearly: list[Row] = [(46341, [10**15 + step + at for step in row]) for at, row in enumerate(steps)]
    high: list[Row] = [(1, [UP, -UP]), (WHOLE, [UP, 5]), (WHOLE * 8, [-5, -UP]), (3, [UP - 1, UP])]
    return {
        "three buckets": ({}, [(WHOLE, _rows(3, 3))]),
        "four": ({}, [(WHOLE, _rows(4, 4))]),
        "five in two windows": ({}, [(WHOLE, _rows(5, 5)), (WHOLE, _rows(15, 5))]),
        "seven, one byzantine": ({"byzantine": 1}, [(WHOLE, seven)]),
        "seven, two": ({"byzantine": 2}, [(WHOLE, seven)]),
        "eight, one iteration": ({"iterations": 1}, [(WHOLE, eight)]),
        "eight, 64 iterations": ({"iterations": 64}, [(WHOLE, eight)]),
        "two empty buckets: too few for two byzantine ones": ({"byzantine": 2}, [(WHOLE, left_out)]),
        "all but two empty: added": ({}, [(WHOLE, [nothing, *_rows(9, 2), nothing])]),
        "late windows, one dropped": (
            {},
            [(WHOLE, _rows(21, 4)), (24105, _rows(22, 4)), (0, _rows(23, 4)), (1, _rows(24, 4))],
        ),
        "windows of four buckets and of three: added": ({}, [(WHOLE, _rows(31, 4)), (46341, _rows(32, 3))]),
        "a dropped window of three beside one of four": ({}, [(0, _rows(33, 3)), (WHOLE, _rows(34, 4))]),
        "four buckets where the policy says five": ({"buckets": 5}, [(WHOLE, _rows(35, 4))]),
        "one bucket, of before: added": ({"buckets": 8}, [(WHOLE, _rows(36, 1))]),
        "equal buckets": ({}, [(WHOLE, equal)]),
        "zeros": ({}, [(WHOLE, [(WHOLE, [0, 0])] * 3)]),
        "on a line: all ties": ({"byzantine": 1}, [(WHOLE, line)]),
        "40 weights, sums of 2^58": ({}, [(WHOLE, _rows(51, 5, size=40, exponent=56))]),
        "nearly equal: distances are rounding": ({"byzantine": 1}, [(WHOLE, nearly)]),
        "means that add up to nothing": ({}, [(WHOLE, CANCEL)]),
        "cut at 2^62": ({}, [(WHOLE, high)]),
        "twelve": ({"byzantine": 3}, [(WHOLE, _rows(41, 12, size=2))]),
    }


def robust_cases() -> dict[str, Any]:
    """Every merge over every shape."""
    cases = []
    for kind in ROBUST:
        for name, (keys, windows) in _shapes().items():
            rule = _rule(kind, max(len(rows) for _, rows in windows)) | keys
            cases.append(_case(f"{kind}: {name}", rule, windows))
    cases += [
        _case("the mean", _rule("mean", 1), [(WHOLE, _rows(1, 1)), (46341, _rows(2, 1))]),
        _case("the mean of buckets of before", _rule("mean", 1), [(WHOLE, _rows(3, 3)), (1, _rows(4, 3))]),
    ]
    return document("merges: windows' sums by bucket, and the sums that the step is made of", cases)
