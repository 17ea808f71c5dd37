"""Attacks that need no more than a device's own update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fluvial.arena.attacks.shape import Attack, Turn, of_norm

if TYPE_CHECKING:
    from fluvial.arena.perceptron import Floats, Labels
    from fluvial.arena.world import World


class SignFlip(Attack):
    """Its own update turned round, five times as long."""

    name = "sign-flip"
    source = "Li et al. 2019, RSA, section 5"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return turn.own * np.float32(-5.0)


class Scaling(Attack):
    """Everything times ten, so that these devices' data decide."""

    name = "scaling"
    source = "Bagdasaryan et al. 2020, How to backdoor federated learning, section 4.2"

    def data(self, world: World, member: int, x: Floats, y: Labels) -> tuple[Floats, Labels]:  # noqa: ARG002
        """See ``Attack``."""
        return x, (y + 1) % world.model.classes

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return turn.own * np.float32(10.0)


class Gaussian(Attack):
    """Noise, five times as long as an honest update."""

    name = "gaussian"
    source = "Blanchard et al. 2017, Machine learning with adversaries, section 5"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        noise = turn.rng.normal(size=turn.own.size).astype(np.float32)
        return of_norm(noise, 5.0 * float(np.linalg.norm(turn.own)))


class LabelFlip(Attack):
    """Trains on labels counted from the other end."""

    name = "label-flip"
    source = "Fang et al. 2020, Local model poisoning, section 5.1"

    def data(self, world: World, member: int, x: Floats, y: Labels) -> tuple[Floats, Labels]:  # noqa: ARG002
        """See ``Attack``."""
        return x, world.model.classes - 1 - y
