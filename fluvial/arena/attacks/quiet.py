"""Attacks that take their time, or give nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.attacks.shape import Attack, Turn, of_norm

if TYPE_CHECKING:
    from fluvial.arena.perceptron import Floats

LATE_VERSION: Final = 20
DRIFT: Final = 0.6
DRIFT_SEED: Final = 20


class FreeRiderZeros(Attack):
    """Sends that nothing has changed."""

    name = "free-rider-zeros"
    source = "Lin et al. 2019, Free-riders in federated learning, section 3"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return np.zeros_like(turn.own)


class FreeRiderReplay(Attack):
    """The last global step, sent back."""

    name = "free-rider-replay"
    source = "Fraboni et al. 2021, Free-rider attacks on model aggregation, section 3"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        step = turn.known.last_step
        return np.zeros_like(turn.own) if step is None else of_norm(step, turn.known.norm_usual)


class SlowDrift(Attack):
    """Honest, and a little along one direction that never changes."""

    name = "slow-drift"
    source = "Baruch et al. 2019, A little is enough, section 3"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        along = np.random.default_rng(DRIFT_SEED).normal(size=turn.own.size).astype(np.float32)
        norm = float(np.linalg.norm(turn.own))
        return of_norm(of_norm(turn.own, 1.0 - DRIFT) + of_norm(along, DRIFT), norm)


class LatePhase(Attack):
    """Honest until all trust it, then the mean turned round."""

    name = "late-phase"
    source = "Fluvial: an attacker that waits"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        if turn.known.version < LATE_VERSION:
            return turn.own
        return turn.known.mean * np.float32(-1.5)


class SpoofedStaleness(Attack):
    """Drags the model back to an old version, and says that it is of the newest."""

    name = "staleness-spoofed"
    source = "Fluvial: what a base is, is a device's word"

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        known = turn.known
        back = known.model(known.oldest_base) - known.model(turn.base)
        return back * np.float32(5.0) if np.any(back) else -turn.own
