"""What robust merges cost, beside numpy's twins in one run; and what buckets cost a worker's fold.

    python benchmarks/merges.py [--parameters 100000 1000000] [--buckets 8] [--updates 256] [--rounds 7] [--json]

A merge goes from a version's sums by bucket, int64, to the sums that its step is made of. "numpy" is the naive twin,
which has its bits: pair by pair, each inner product added from its first element to its last (tests/naive.py). "BLAS"
is numpy as one would write it: the Gram matrix by one product of matrices, so other bits. ms, the least of the rounds.

The fold: µs of the processor for an update of 100,000 parameters, by the number of buckets; the least of the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.merges import MERGES, Bucket, Merge
from aggregation.policy import MergePolicy, Policy, policy_from_mapping
from aggregation.server.buckets import one_of
from aggregation.server.totals import Total, WindowSums, add_windows
from benchmarks import machine
from benchmarks.defences import Bench
from tests import naive

FOLDED_PARAMETERS: Final = 100_000
ONE: Final = 1 << 16
ROBUST: Final = {name: merge for name, merge in MERGES.items() if merge.robust}
Rows = npt.NDArray[np.int64]


def total_of(parameters: int, buckets: int) -> Total:
    """Sums of so many buckets: a common step, and noise."""
    rng = np.random.default_rng(parameters + buckets)
    step = rng.standard_normal(parameters)
    rows = np.array([step + 0.5 * rng.standard_normal(parameters) for _ in range(buckets)])
    sums = np.rint(rows * 2.0**30).astype(np.int64).reshape(-1)
    said = tuple(Bucket(3, 3 * ONE - place) for place in range(buckets))
    window = WindowSums(sums, sum(one.weight for one in said), buckets=said)
    return add_windows([window], weights=parameters, elements=parameters)


def by_blas(merge: Merge, rules: MergePolicy, rows: Rows, weights: list[int]) -> Rows:
    """The same rule with numpy's product of matrices: the sums are added in another order."""
    vectors = rows.astype(np.float64)
    scales = np.array(weights, dtype=np.float64)
    gram = (vectors @ vectors.T) / np.outer(scales, scales)
    chosen = np.array(merge.coefficients(rules, gram.tolist(), weights))
    total = (chosen * scales.sum() / scales) @ vectors
    made: Rows = np.rint(np.clip(total, -(2.0**62), 2.0**62)).astype(np.int64)
    return made


def by_twin(merge: Merge, rules: MergePolicy, rows: Rows, weights: list[int]) -> Rows:
    """The naive twin."""
    chosen = merge.coefficients(rules, naive.gram_of(rows, weights), weights)
    return naive.combined(rows, weights, chosen)


def least_ms(rounds: int, run: Callable[[], object]) -> float:
    """The least of so many runs."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        found.append(1000.0 * (time.perf_counter() - began))
    return min(found)


def merges(parameters: int, buckets: int, rounds: int) -> dict[str, dict[str, float]]:
    """Every robust merge and its twins in ms, and how many times as long these take."""
    total = total_of(parameters, buckets)
    rows, weights = total.rows(parameters), total.bucket_weights
    found = {}
    for name, merge in ROBUST.items():
        rules = MergePolicy(kind=name, buckets=buckets)
        ours = one_of(total, parameters, rules)
        assert ours.tobytes() == by_twin(merge, rules, rows, weights).tobytes()
        compiled = least_ms(rounds, lambda rules=rules: one_of(total, parameters, rules))  # type: ignore[misc]
        others = {
            "numpy": least_ms(2, lambda m=merge, r=rules: by_twin(m, r, rows, weights)),  # type: ignore[misc]
            "blas": least_ms(rounds, lambda m=merge, r=rules: by_blas(m, r, rows, weights)),  # type: ignore[misc]
        }
        ratios = {f"{which}_ratio": ms / compiled for which, ms in others.items()}
        found[name] = {"merge": compiled} | others | ratios
    return found


def folded_under(buckets: int) -> Policy:
    """A policy of so many buckets in which every update of the benchmark counts and no window closes."""
    sections: dict[str, Any] = {"window": {"updates_max": 100_000, "records_max": 1_000_000}}
    if buckets > 1:
        sections |= {"merge": {"kind": next(iter(ROBUST)), "buckets": buckets}, "buffer": {"updates": 100}}
    return policy_from_mapping(sections)


def folds(buckets: tuple[int, ...], updates: int, rounds: int) -> dict[int, float]:
    """µs an update of the fold alone, by buckets."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(FOLDED_PARAMETERS, updates, Path(folder))
    least = dict.fromkeys(buckets, float("inf"))
    for _ in range(rounds + 1):
        for count in buckets:
            least[count] = min(least[count], bench.measure(folded_under(count))[0])
    return least


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--buckets", type=int, default=8)
    parser.add_argument("--updates", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    merged = {size: merges(size, options.buckets, options.rounds) for size in options.parameters}
    folded = folds((1, options.buckets, 32), options.updates, options.rounds)
    if options.json:
        print(json.dumps({"machine": machine.describe(), "merges": merged, "fold": folded}, indent=2))
        return
    print(machine.describe())
    print(
        f"{'parameters':>10}  {'merge':18}{'ms':>8}{'numpy, ms':>11}{'times':>7}{'BLAS, ms':>10}{'times':>7}"
    )
    for size, kinds in merged.items():
        for kind, row in kinds.items():
            print(
                f"{size:>10}  {kind:18}{row['merge']:8.1f}{row['numpy']:11.1f}{row['numpy_ratio']:7.1f}"
                f"{row['blas']:10.1f}{row['blas_ratio']:7.1f}"
            )
    print(f"{'buckets':>10}  fold of an update, µs")
    for count, us in folded.items():
        print(f"{count:>10}  {us:.1f}  ({us / folded[1]:.2f} times one bucket)")


if __name__ == "__main__":
    main()
