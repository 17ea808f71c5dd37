"""Attacks that read the policy and stay just inside each of its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.attacks.shape import Attack, Sent, Turn, against, of_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.arena.perceptron import Floats

MARGIN: Final = 0.02
"""How far inside a bound they stay."""
TINY: Final = 0.01


def _wish(turn: Turn) -> Floats:
    """Against where the honest go."""
    mean = turn.known.mean
    return -mean if np.any(mean) else -turn.own


def _size(turn: Turn) -> float:
    """As large as clipping leaves it."""
    known = turn.known
    return min(known.rules.norm_clip, 2.0 * known.norm_usual)


class InsideTheBound(Attack):
    """Against the honest mean, at the lowest cosine that is not refused."""

    name = "inside-the-bound"
    source = "Fluvial: a bound is an invitation"
    knows_rules = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        bound = turn.known.rules.cosine_min + MARGIN
        return of_norm(against(turn.known.watched, _wish(turn), bound), _size(turn))


class AdaptiveToTheStep(Attack):
    """Against the honest mean, but along the last step as far as an honest update is."""

    name = "adaptive-to-the-step"
    source = "Fluvial: the last step is public"
    knows_rules = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return of_norm(against(turn.known.last_step, _wish(turn), 0.1), _size(turn))


class AdaptiveToTheGuide(Attack):
    """Against the honest mean, but along the guide as far as an honest update is, for the whole weight."""

    name = "adaptive-to-the-guide"
    source = "Fluvial: the guide is public"
    knows_rules = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        known = turn.known
        cosine = known.cosine_usual if known.guide is not None else 0.1
        return of_norm(against(known.watched, _wish(turn), cosine), _size(turn))


class DetectorPoisoned(Attack):
    """Tiny norms, so that what is usual becomes tiny; in every third version a large one against the mean."""

    name = "detector-poisoned"
    source = "Fluvial: 42 tiny updates make honest ones anomalous"
    knows_rules = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        if turn.base % 3 == 2:  # noqa: PLR2004 (the third)
            return of_norm(_wish(turn), 10.0 * turn.known.norm_usual)
        return of_norm(turn.own, TINY * turn.known.norm_usual)

    def answers(self, turn: Turn) -> Sequence[Sent]:
        """See ``Attack``."""
        return [Sent(turn.device, turn.base, self.delta(turn))]


class DetectorOff(Attack):
    """Zeros, so that nothing is usual; in every third version a large one against the mean."""

    name = "detector-off"
    source = "Fluvial: 42 zero updates switch the detector off"
    knows_rules = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        if turn.base % 3 == 2:  # noqa: PLR2004
            return of_norm(_wish(turn), 10.0 * turn.known.norm_usual)
        return np.zeros_like(turn.own)


class Collusion(Attack):
    """All of the coalition in one region, where it is the majority and sets what is usual."""

    name = "collusion-of-a-region"
    source = "Fluvial: norms were a partition's own"
    knows_rules = True
    one_region = True

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return of_norm(_wish(turn), 10.0 * turn.known.norm_usual)
