"""The L2 norm of a delta or of a direction, from what the loops sum up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def norm_of(scales: Sequence[float], squares: Sequence[float]) -> float:
    """√(Σ_t scale_t² · squares_t), the tensors in layout order, in float64."""
    total = 0.0
    for scale, square in zip(scales, squares, strict=True):
        if square:  # a huge scale over zeros is still zero, not inf * 0
            total += scale * scale * float(square)
    return math.sqrt(total)
