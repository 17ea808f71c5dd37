"""FedAvg of whole models: what folding them and one merge come to, for models that are all at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.optimizers import read_only
from aggregation.policy import SUM_LIMIT
from aggregation.server.merge import PIECE_ELEMENTS

AT_ONCE: Final = 5
"""So many models are added in one loop, their sums in registers."""

if TYPE_CHECKING:
    from collections.abc import Sequence


def exact_mean(models: Sequence[npt.NDArray[np.float32]], exponent: int) -> npt.NDArray[np.float32]:
    """The mean float32[P] of ``models``, one or more float32[P], by exact sums in units of 2**-exponent.

    An element is rint(x · 2**exponent) of each model, added as integers, divided in float64 by the unit and by the
    number of models: the same bits in whatever order they stand. One pass: a piece of all models is summed and divided
    while its sums are in the processor's cache. ``IntegrityProblem`` (FLV-3004) where an element is no number, or so
    large that so many of it would leave int64.
    """
    from aggregation.server import kernels

    size, unit = models[0].size, float(1 << exponent)
    mean = np.empty(size, dtype=np.float32)
    sums = np.empty(min(size, PIECE_ELEMENTS), dtype=np.int64)
    nothing = read_only(np.zeros(sums.size, dtype=np.float32))
    seen = [read_only(model) for model in models]
    for begin in range(0, size, PIECE_ELEMENTS):
        piece = slice(begin, min(begin + PIECE_ELEMENTS, size))
        total, parts = sums[: piece.stop - begin], [model[piece] for model in seen]
        parts += [nothing[: total.size]] * (-len(parts) % AT_ONCE)
        total.fill(0)
        for first in range(0, len(parts), AT_ONCE):
            a, b, c, d, e = parts[first : first + AT_ONCE]
            largest = kernels.add_models_into(total, a, b, c, d, e, unit)
            _require_room(largest, len(models), unit)
        kernels.mean_into(mean[piece], read_only(total), 1.0 / unit, float(len(models)))
    return mean


def _require_room(largest_bits: int, models: int, unit: float) -> None:
    reach = float(np.int32(largest_bits).view(np.float32)) * models * unit
    if not reach <= SUM_LIMIT:  # nor if it is NaN
        raise IntegrityProblem(
            "FLV-3004", f"the sums of {models} models reach {reach:.3e}, the bound is {SUM_LIMIT:.3e}"
        )
