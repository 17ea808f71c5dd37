"""How a version's mean delta is turned towards its guide, by schemas/meaning.md: plain sums, in order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluvial.proof.checker.arithmetic import Direction, Ints, Tensor
from fluvial.proof.checker.standing import counts_shares

MOST = float(2**62)


def turned(sums: Ints, guide: Direction | None, policy: dict[str, Any], layout: list[Tensor]) -> Ints:
    """int64[P] of the weights, at most so far from the guide as ``defence.step_cosine_min`` says."""
    if guide is None or not counts_shares(policy) or policy["defence"]["kind"] != "guide":
        return sums
    least = float(policy["defence"]["step_cosine_min"])
    if least <= 0.0:
        return sums
    toward = np.concatenate(
        [q.astype(np.float64) * scale for q, scale in zip(guide.q, guide.scales, strict=True)]
    )
    assert toward.size == layout[-1].end
    given = sums.astype(np.float64)
    along, squares, others = (
        float(np.cumsum(a * b)[-1]) for a, b in ((given, toward), (given, given), (toward, toward))
    )
    if along <= 0.0:
        return np.zeros_like(sums)
    if along * along >= least * least * squares * others:
        return sums
    part = along / others
    across = math.sqrt(max(0.0, squares - along * part))
    allowed = part * math.sqrt(others) * math.sqrt(1.0 - least * least) / least
    kept = min(1.0, allowed / across) if across > 0.0 else 1.0
    mixed = kept * given + ((1.0 - kept) * part) * toward
    return np.rint(np.clip(mixed, -MOST, MOST)).astype(np.int64)
