"""Attacks that are computed from the honest updates, so as to hide among them or to turn their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.attacks.shape import Attack, Turn

if TYPE_CHECKING:
    from fluvial.arena.perceptron import Floats

HALVINGS: Final = 12
"""Steps of the search for the largest factor that still hides."""
EMPIRE_FACTOR: Final = 1.5
ALIE_DEVIATIONS: Final = 1.0
FACTOR_MAX: Final = 20.0


class Alie(Attack):
    """The honest mean less so many standard deviations an element."""

    name = "alie"
    source = "Baruch et al. 2019, A little is enough, algorithm 1"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        honest = turn.known.honest
        if len(honest) < 2:  # noqa: PLR2004 (a deviation needs two)
            return -turn.own
        crafted: Floats = honest.mean(axis=0) - np.float32(ALIE_DEVIATIONS) * honest.std(axis=0)
        return crafted


class InnerProduct(Attack):
    """The honest mean turned round."""

    name = "inner-product"
    source = "Xie et al. 2020, Fall of empires, section 4"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        mean = turn.known.mean if len(turn.known.honest) else turn.own
        return mean * np.float32(-EMPIRE_FACTOR)


class MinMax(Attack):
    """As far against the mean as no honest update is from another."""

    name = "min-max"
    source = "Shejwalkar and Houmansadr 2021, Manipulating the byzantine, section 4.3"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return _hidden(turn, total=False)


class MinSum(Attack):
    """The same by sums of squared distances."""

    name = "min-sum"
    source = "Shejwalkar and Houmansadr 2021, Manipulating the byzantine, section 4.3"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return _hidden(turn, total=True)


def _hidden(turn: Turn, *, total: bool) -> Floats:
    """Mean − factor · mean / ‖mean‖ with the largest factor whose distances stay within the honest ones'."""
    honest = turn.known.honest
    if len(honest) < 2:  # noqa: PLR2004 (a distance needs two)
        return -turn.own
    mean: Floats = honest.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length == 0.0:
        return mean
    toward = -mean / np.float32(length)
    squares = np.einsum("ij,ij->i", honest, honest)
    between = squares[:, None] + squares[None, :] - 2.0 * (honest @ honest.T)
    bound = between.sum(axis=1).max() if total else between.max()
    low, high = 0.0, FACTOR_MAX
    for _ in range(HALVINGS):
        factor = (low + high) / 2
        apart = np.square(honest - (mean + np.float32(factor) * toward)).sum(axis=1)
        low, high = (factor, high) if (apart.sum() if total else apart.max()) <= bound else (low, factor)
    hidden: Floats = mean + np.float32(low) * toward
    return hidden


class Mimic(Attack):
    """All send what one honest device sends, which drowns the others."""

    name = "mimic"
    source = "Karimireddy et al. 2022, Byzantine-robust learning on heterogeneous data, section 3.2"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        honest = turn.known.honest
        return honest[0] if len(honest) else turn.own
