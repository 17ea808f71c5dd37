"""How the buckets of a version become one sum, by schemas/meaning.md ("Merges"): plain loops, in the written order.

The papers: RFA (Pillutla, Kakade, Harchaoui 2022, algorithm 2), Multi-Krum (Blanchard et al. 2017), nearest-neighbour
mixing (Allouah et al. 2023, algorithm 1). All of them see the buckets' mean deltas by their inner products only, g.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from fluvial.proof.checker.arithmetic import Ints

Square = list[list[float]]
"""n × n."""
Rule = Callable[[Square, list[int], int, int], list[float]]
"""From g, what each bucket weighs, how many may be byzantine, and iterations, to a coefficient a bucket."""
MOST: Final = float(2**62)
LEAST_BUCKETS: Final = 3
"""Of fewer no rule can tell which is odd."""
SMOOTHING: Final = 1e-6


def combined(policy: dict[str, Any], parts: list[Ints], weights: list[int]) -> Ints:
    """The sums that a version's step is made of, int64[W].

    ``parts``: int64[W] of each bucket; ``weights``: what its updates weigh in units of 1/65536, after lateness.
    """
    kept = [b for b, weight in enumerate(weights) if weight > 0]
    rule = MERGES[policy["merge"]["kind"]] if "merge" in policy else None
    if rule is None or len(kept) < LEAST_BUCKETS:
        return sum(parts[1:], start=parts[0].copy())
    parts, weights = [parts[b] for b in kept], [weights[b] for b in kept]
    f = byzantine_of(policy["merge"]["byzantine"], len(kept))
    chosen = rule(gram_of(parts, weights), weights, f, policy["merge"]["iterations"])
    total = np.zeros(parts[0].size)
    for coefficient, weight, part in zip(chosen, weights, parts, strict=True):
        total += coefficient * float(sum(weights)) / float(weight) * part.astype(np.float64)
    return np.rint(np.clip(total, -MOST, MOST)).astype(np.int64)


def byzantine_of(said: int, buckets: int) -> int:
    """How many buckets may be anything: what the policy says, if so many are enough for it, else the most."""
    return said if said > 0 and buckets >= 2 * said + 3 else (buckets - 3) // 2


def gram_of(parts: list[Ints], weights: list[int]) -> Square:
    """The inner products of the buckets' sums, each over what they weigh."""
    floats = [part.astype(np.float64) for part in parts]
    scales = [float(weight) for weight in weights]
    found = [[0.0] * len(parts) for _ in parts]
    for a in range(len(parts)):
        for b in range(a, len(parts)):
            product = float(np.cumsum(floats[a] * floats[b])[-1])
            found[a][b] = found[b][a] = product / (scales[a] * scales[b])
    return found


def distances_of(g: Square) -> Square:
    """The squares of the distances between buckets."""
    n = range(len(g))
    return [[0.0 if a == b else max(0.0, g[a][a] + g[b][b] - 2.0 * g[a][b]) for b in n] for a in n]


def _in_order(values: Iterable[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def _weiszfeld(h: Square, p: list[float], iterations: int) -> list[float]:
    n = range(len(p))
    least = SMOOTHING * math.sqrt(max(0.0, _in_order(p[b] * h[b][b] for b in n)))
    c = list(p)
    if least == 0.0:
        return c
    for _ in range(iterations):
        s = [_in_order(c[a] * h[a][b] for a in n) for b in n]
        z = _in_order(c[b] * s[b] for b in n)
        e = [math.sqrt(max(0.0, h[b][b] - 2.0 * s[b] + z)) for b in n]
        beta = [p[b] / max(least, e[b]) for b in n]
        whole = _in_order(beta)
        c = [one / whole for one in beta]
    return c


def _geometric_median(g: Square, weights: list[int], _f: int, iterations: int) -> list[float]:
    return _weiszfeld(g, [float(weight) / float(sum(weights)) for weight in weights], iterations)


def _krum(g: Square, weights: list[int], f: int, _iterations: int) -> list[float]:
    n = len(g)
    apart = distances_of(g)
    scores = []
    for b in range(n):
        nearest = sorted(apart[b][a] for a in range(n) if a != b)[: n - f - 2]
        scores.append((_in_order(nearest), b))
    kept = sorted(b for _, b in sorted(scores)[: n - f])
    whole = float(sum(weights[b] for b in kept))
    return [float(weights[b]) / whole if b in kept else 0.0 for b in range(n)]


def _mixing(g: Square, _weights: list[int], f: int, iterations: int) -> list[float]:
    n = len(g)
    many = n - f
    apart = distances_of(g)
    near = []
    for b in range(n):
        others = sorted((apart[b][a], a) for a in range(n) if a != b)
        near.append(sorted([b, *(a for _, a in others[: many - 1])]))
    h = [
        [
            _in_order(_in_order(g[a][e] for e in near[c]) for a in near[b]) / float(many * many)
            for c in range(n)
        ]
        for b in range(n)
    ]
    mixed = _weiszfeld(h, [1.0 / float(n)] * n, iterations)
    return [_in_order(mixed[b] / float(many) for b in range(n) if a in near[b]) for a in range(n)]


MERGES: Final[dict[str, Rule | None]] = {
    "mean": None,
    "geometric_median": _geometric_median,
    "krum": _krum,
    "mixing": _mixing,
}
"""Every merge that this checker knows; None: the buckets are added."""
