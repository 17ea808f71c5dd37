"""The server's learning rate of a version: ``fluvial/policy/v5``. By schemas/meaning.md, each operation by itself."""

from __future__ import annotations

from typing import Any, Final

HALF_PI: Final = 1.5707963267948966
TERMS: Final = 12
"""Of the cosine's series."""
STEPS_MAX: Final = 64
"""A rate has fallen far enough by then."""


def rate_of(policy: dict[str, Any], version: int, delay: int) -> float:
    """The rate of the step to ``version``, 1 or more, under its parent's policy.

    ``delay`` is how many versions late the latest of its updates is. Before v5 it is the policy's rate.
    """
    server = policy["server"]
    rate = _scheduled(float(server["learning_rate"]), policy.get("schedule"), version - 1)
    bound = server.get("delay_versions_max", 0)
    if bound and delay > bound:
        return min(rate, 1.0 / float(delay))
    return rate


def _scheduled(full: float, schedule: dict[str, Any] | None, before: int) -> float:
    """The rate after ``before`` versions."""
    if schedule is None:
        return full
    warmup, period = int(schedule["warmup_versions"]), int(schedule["versions"])
    if before < warmup:
        return full * (float(before + 1) / float(warmup))
    since, kind, factor = before - warmup, schedule["kind"], float(schedule["factor"])
    if kind == "step":
        left = 1.0
        for _ in range(min(since // period, STEPS_MAX)):
            left *= factor
        return full * left
    if kind == "cosine":
        return full * (factor + (1.0 - factor) * _half_wave(since, period))
    return full


def _half_wave(since: int, period: int) -> float:
    """(1 + cos(pi * since / period)) / 2, as the square of a cosine by its series around 0."""
    if since >= period:
        return 0.0
    angle = HALF_PI * (float(since) / float(period))
    squared, cosine = angle * angle, 1.0
    for term in range(TERMS, 0, -1):
        cosine = 1.0 - squared / float((2 * term - 1) * 2 * term) * cosine
    return cosine * cosine
