"""Attacks by number: more bases, more identities, more speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fluvial.arena.attacks.informed import AdaptiveToTheGuide
from fluvial.arena.attacks.optimized import InnerProduct
from fluvial.arena.attacks.plain import SignFlip
from fluvial.arena.attacks.shape import Attack, Sent, Turn, of_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.arena.perceptron import Floats

FLOOD: Final = 0.9
"""The share of the traffic that is the coalition's."""
TINY: Final = 0.01
SHORT: Final = 0.3
BASES_MAX: Final = 21


def at_every_base(turn: Turn, delta: Floats) -> list[Sent]:
    """One update for each base that is still welcome, the newest first, up to ``BASES_MAX`` of them."""
    oldest = max(turn.known.oldest_base, turn.known.version - BASES_MAX + 1)
    bases = range(turn.known.version, oldest - 1, -1)
    return [Sent(turn.device, base, delta) for base in bases]


class FloodBases(InnerProduct):
    """Answers every live base at once."""

    name = "flood-bases"
    source = "Fluvial: one device, a version by itself"
    floods = True
    pace = 0.5

    def answers(self, turn: Turn) -> Sequence[Sent]:
        """See ``Attack``."""
        return at_every_base(turn, self.delta(turn))


class FloodIdentities(InnerProduct):
    """Certificates enough for nine of ten updates."""

    name = "flood-identities"
    source = "Douceur 2002, The Sybil attack, section 3"
    floods = True
    traffic = FLOOD


class FloodAdaptive(AdaptiveToTheGuide):
    """Answers every live base, and just inside the rules."""

    name = "flood-bases-adaptive"
    source = "Fluvial: flooding by those who read the policy"
    floods = True
    pace = 0.5

    def answers(self, turn: Turn) -> Sequence[Sent]:
        """See ``Attack``."""
        return at_every_base(turn, self.delta(turn))


class FloodIdentitiesAdaptive(AdaptiveToTheGuide):
    """Nine of ten updates, and just inside the rules."""

    name = "flood-identities-adaptive"
    source = "Fluvial: flooding by those who read the policy"
    floods = True
    traffic = FLOOD


class Fast(SignFlip):
    """Answers at once, so that it is in every version."""

    name = "fast"
    source = "Fluvial: speed is a vote"
    pace = 0.1


class Starvation(Attack):
    """Many fast devices that make versions of nothing, so that the slow become too stale."""

    name = "starvation"
    source = "Fluvial: 20 fast devices lock out 360"
    pace = 0.05
    traffic = 0.5
    floods = True
    length: ClassVar[float] = TINY

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        noise = turn.rng.normal(size=turn.own.size).astype(np.float32)
        return of_norm(noise, self.length * float(np.linalg.norm(turn.own)))


class StarvationShort(Starvation):
    """The same, not so short that it could not be honest."""

    name = "starvation-short"
    length = SHORT
