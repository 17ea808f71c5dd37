"""The cone: a version's mean delta may not point farther from its guide than ``defence.step_cosine_min``.

With m the version's sums of the weights, g the guide and k that cosine, all sums over elements in their order, in
float64::

    d = Σ m g    n = Σ m m    G = Σ g g
    d ≤ 0                    the step is nothing
    d d ≥ k k n G            it is what it was
    else                     m' = f m + (1 - f) a g
                             a = d / G,   f = min(1, a √G √(1 - k k) / k / √(n - d a))

m' is m without the part that stands too far out of the cone around g: its part along g is m's. Each element is rounded
to the nearest integer. Whether an update agrees is judged one by one (``defences.guide``); what many that each agree a
little come to is judged here: many devices that push one way at the usual cosine, or a backdoor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.defences import defence_named

if TYPE_CHECKING:
    from aggregation.codecs import Direction
    from aggregation.layout import Layout
    from aggregation.policy import Policy

SUM_MAX: Final = float(1 << 62)
"""No element of a turned sum is larger: no honest version comes near."""


def turned(
    sums: npt.NDArray[np.int64], guide: Direction | None, policy: Policy, layout: Layout
) -> npt.NDArray[np.int64]:
    """``sums`` int64[P] of the weights, turned towards ``guide`` as far as the policy wants it; ``layout`` is theirs.

    The very same array where the policy's defence has no guide, where there is none, or nothing is to be turned.
    """
    least = policy.defence.step_cosine_min
    if guide is None or not defence_named(policy.defence.kind).guided or least <= 0.0:
        return sums
    from aggregation.server import kernels

    direction = np.empty(sums.size, dtype=np.float64)
    edges = layout.starts.tolist()
    for t, scale in enumerate(guide.scales):
        np.multiply(guide.q[edges[t] : edges[t + 1]], scale, out=direction[edges[t] : edges[t + 1]])
    along, squares, guide_squares = kernels.products(sums, direction)
    if not along > 0.0:
        return np.zeros_like(sums)
    if along * along >= least * least * squares * guide_squares:
        return sums
    part = along / guide_squares
    allowed = part * math.sqrt(guide_squares) * math.sqrt(1.0 - least * least) / least
    across = math.sqrt(max(0.0, squares - along * part))
    kept = min(1.0, allowed / across) if across > 0.0 else 1.0
    made = np.empty_like(sums)
    kernels.turn_into(made, sums, direction, kept, (1.0 - kept) * part, SUM_MAX)
    return made
