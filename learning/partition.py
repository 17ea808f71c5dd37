"""How examples are spread over devices. Pure numpy; the same seed gives the same split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from learning.datasets import Examples

Indices = NDArray[np.int64]


def dirichlet_split(
    labels: NDArray[np.int64], devices: int, alpha: float, seed: int, examples_min: int
) -> list[Indices]:
    """Non-identical label mixes, after Hsu, Qi and Brown 2019 (arXiv:1909.06335, section 3).

    Device d draws its class mix q_d ~ Dirichlet(alpha · p), where p[c] = C · (share of class c), C classes,
    so that equally frequent classes give the symmetric Dirichlet(alpha). alpha → ∞: every device sees the
    common mix; alpha → 0: one class each. Every device then holds ⌊n / devices⌋ or one more examples, filled
    one at a time
    in turn: a class is drawn from q_d restricted to classes that still have examples, and the next unused
    example of that class (in shuffled order) is taken. All n examples are given out, each exactly once.

    labels: int64[n]. Returns ``devices`` arrays of sorted indices into ``labels``, each at least ``examples_min``
    long.
    Raises UsageProblem FLV-2212 if devices < 1, alpha is not positive and finite, or n < devices ·
    examples_min.
    """
    _check(len(labels), devices, alpha, examples_min)
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    unused = [list(random.permutation(np.flatnonzero(labels == label))) for label in classes]
    remaining = counts.astype(np.int64)
    concentration = alpha * counts * (len(classes) / counts.sum())
    mixes = random.dirichlet(concentration, size=devices)
    chosen: list[list[int]] = [[] for _ in range(devices)]
    for turn in range(len(labels)):
        device = turn % devices
        label = _draw_class(mixes[device], remaining, random.random())
        chosen[device].append(unused[label].pop())
        remaining[label] -= 1
    return [np.sort(np.array(indices, dtype=np.int64)) for indices in chosen]


def _draw_class(mix: NDArray[np.float64], remaining: Indices, uniform: float) -> int:
    """Inverse-CDF draw from ``mix`` over classes with remaining > 0 (by what remains if the mix is 0)."""
    weights = np.where(remaining > 0, mix, 0.0)
    if weights.sum() <= 0.0:
        weights = remaining.astype(np.float64)
    cumulative = np.cumsum(weights)
    drawn = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    available = np.flatnonzero(weights > 0)
    return drawn if drawn < len(weights) and weights[drawn] > 0 else int(available[-1])


def split_among_devices(
    examples: Examples, devices: int, alpha: float, seed: int, examples_min: int = 1
) -> list[Examples]:
    """One ``Examples`` a device: ``dirichlet_split`` for class labels, a shuffled even split for other targets.

    Raises UsageProblem FLV-2212 as ``dirichlet_split`` does.
    """
    if examples.y.dtype == np.int64 and examples.y.ndim == 1:
        parts = dirichlet_split(examples.labels, devices, alpha, seed, examples_min)
    else:
        _check(len(examples), devices, alpha, examples_min)
        parts = np.array_split(np.random.default_rng(seed).permutation(len(examples)), devices)
    return [examples.subset(part) for part in parts]


def _check(examples: int, devices: int, alpha: float, examples_min: int) -> None:
    if devices < 1:
        raise UsageProblem("FLV-2212", f"expected at least 1 device to split data among, got {devices}")
    if not (np.isfinite(alpha) and alpha > 0):
        raise UsageProblem("FLV-2212", f"the Dirichlet alpha must be positive and finite, got {alpha}")
    needed = devices * max(examples_min, 1)
    if examples < needed:
        raise UsageProblem(
            "FLV-2212",
            f"{devices} devices with at least {max(examples_min, 1)} examples each need {needed} training "
            f"examples; the task has {examples}",
            hint=f"use at most {examples // max(examples_min, 1)} devices, or give the task more data",
        )
