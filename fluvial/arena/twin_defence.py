"""A naive twin as a defence: a buffer of K updates, one a device and base, each clipped to the policy's norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fluvial.arena.attacks.shape import Rules, Sent
from fluvial.arena.twins.shape import Batch, Combined, Doubles
from fluvial.arena.versions import ACCEPTED, DUPLICATE, TOO_STALE, Versions

if TYPE_CHECKING:
    from fluvial.arena.perceptron import Floats
    from fluvial.arena.twins.shape import Twin
    from fluvial.arena.world import World

BUFFER: Final = 20
"""K: a version is made of so many accepted updates."""
VERSIONS_MAX: Final = 20
"""Versions that a base may be old."""


class TwinDefence(Versions):
    """What a paper's rule makes of the rounds. Rules with a root set get the guide of the play."""

    def __init__(self, world: World, twin: Twin, seed: int) -> None:
        super().__init__(world.first, VERSIONS_MAX)
        self._world, self._twin, self._seed = world, twin, seed
        self.rules = Rules(world.norm_clip, 0.0 if twin.needs_root else -1.0, guided=twin.needs_root)
        self.guided = twin.needs_root
        self._buffer: list[Sent] = []
        self._guide: Floats | None = None
        self._contributed: set[tuple[str, int]] = set()

    @property
    def state_bytes(self) -> int:
        """See ``Defence``."""
        return self._twin.state_bytes + BUFFER * self._world.first.size * 4

    def offer(self, sent: Sent, now: float) -> None:  # noqa: ARG002 (no twin has a clock)
        """Into the buffer; what it counts is known when the version is made."""
        if sent.base < self.oldest_base:
            sent.outcome = TOO_STALE
        elif (sent.device, sent.base) in self._contributed:
            sent.outcome = DUPLICATE
        else:
            sent.outcome = ACCEPTED
            sent.staleness = self.version - sent.base
            self._contributed.add((sent.device, sent.base))
            self._buffer.append(sent)

    def tick(self) -> None:
        """See ``Defence``."""

    def due(self) -> bool:
        """See ``Defence``."""
        return len(self._buffer) >= BUFFER

    def waiting(self) -> int:
        """See ``Defence``."""
        return len(self._buffer)

    def step(self, guide: Floats | None, now: float) -> None:  # noqa: ARG002
        """FedBuff's step by the rule's mean; weights are FedBuff's, 1 / sqrt(1 + staleness)."""
        buffer, self._buffer = self._buffer, []
        staleness = np.array([one.staleness for one in buffer])
        weights = 1.0 / np.sqrt(1.0 + staleness)
        batch = Batch(
            updates=np.stack([self._clipped(one.delta) for one in buffer]),
            weights=weights,
            staleness=staleness,
            devices=tuple(one.device for one in buffer),
            guide=None if guide is None else guide.astype(np.float64),
            rng=np.random.default_rng((self._seed, self.version, 13)),
        )
        combined: Combined = self._twin.combine(batch)
        for one, counted, weight in zip(buffer, combined.counted, weights, strict=True):
            one.weight, one.share = float(counted), float(counted / weight)
        size = weights.sum() / len(buffer)  # FedBuff divides by K, whatever the weights
        before = self.model(self.version).astype(np.float64)
        self.add((before + self._world.server_rate * size * combined.mean).astype(np.float32))
        oldest = self.oldest_base
        self._contributed = {pair for pair in self._contributed if pair[1] >= oldest}

    def _clipped(self, delta: Floats) -> Doubles:
        wide = delta.astype(np.float64)
        norm = float(np.linalg.norm(wide))
        return wide * (self._world.norm_clip / norm) if norm > self._world.norm_clip else wide
