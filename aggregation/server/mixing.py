"""Mixing (``server.mixing``): an update is a model to be mixed in, and not a step to be added.

FedAsync (Xie, Koyejo, Gupta 2019, "Asynchronous Federated Optimization", algorithm 1) makes x' = (1 - a s) x + a s y,
with a the mixing rate, s a staleness weight and y what a device trained from version b. The update says y - x_b, so
y - x is that and x_b - x. Of a version's windows that count, with W_b what updates that answered b weigh after
lateness, in 1/65536, and ``divisor`` that of the mean delta d::

    f_b = (W_b / 65536) / divisor
    d'  = d + f_b (x_b - x)         for each b below the parent's version, ascending

in float64, each operation rounded once, element by element; d is the mean delta of the weights, after merge and cone.
With one update a version, sgd and ``divide_by = "updates"`` that is the paper's step, ``learning_rate`` its rate.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from aggregation.weights.fixed_point import WEIGHT_ONE, weight_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate

PIECE_ELEMENTS: Final = 1 << 15
"""So many weights are mixed at once: what is read and written of them stays in a processor core's own cache."""


class MixedBase(NamedTuple):
    """Updates of a version that answered one base: their weight in 1/65536, 1 or more, and its model, float32[P]."""

    weight: int
    model: npt.NDArray[np.float32]


def mixed_bases(
    windows: Iterable[tuple[Aggregate, int]],
    policy: Policy,
    version: int,
    read: Callable[[int], npt.NDArray[np.float32]],
) -> Iterator[MixedBase]:
    """What the step after ``version`` mixes in, one at a time: nothing where ``policy``, in force there, does not mix.

    ``windows`` are those of the version that is made, each with what lateness leaves of it, in 1/65536, 0 for one that
    is dropped. ``read`` gives a version's model, float32[P].
    """
    if not policy.server.mixing:
        return
    weighs = Counter[int]()
    for one, weight in windows:
        for base in one.bases if weight else ():
            weighs[base.base] += weight_after(base.weight, weight)
    for number in sorted(weighs):
        if number < version:
            yield MixedBase(weighs[number], read(number))


def mix_into(
    delta: npt.NDArray[np.float64],
    parent: npt.NDArray[np.float32],
    bases: Iterable[MixedBase],
    divisor: float,
) -> None:
    """Add to the mean delta, float64[W], the way from the parent's weights, float32[W], to those of each base."""
    for weight, model in bases:
        factor = float(weight) / float(WEIGHT_ONE) / divisor
        for begin in range(0, delta.size, PIECE_ELEMENTS):
            piece = slice(begin, min(begin + PIECE_ELEMENTS, delta.size))
            way = model[piece].astype(np.float64) - parent[piece].astype(np.float64)
            delta[piece] += factor * way
