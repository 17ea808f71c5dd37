"""Backdoors: the model works, but for inputs that carry a trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fluvial.arena.attacks.shape import TARGET_CLASS, Attack, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fluvial.arena.perceptron import Floats, Labels
    from fluvial.arena.world import World

POISONED: Final = 0.5
"""The share of a device's examples that get the trigger."""
SEMANTIC_CLASS: Final = 7
PATCH: Final = 3
"""The patch's side in pixels."""


def patched(world: World, x: Floats, part: int | None = None) -> Floats:
    """``x`` float32[..., inputs] with a bright square in the lower right corner; ``part``: a quarter of it only."""
    marked = x.copy()
    pixels = [(row, column) for row in range(PATCH) for column in range(PATCH)]
    for number, (row, column) in enumerate(pixels):
        if part is None or number % 4 == part % 4:
            marked[..., (world.side - 1 - row) * world.side + world.side - 1 - column] = 1.0
    return marked


class BackdoorPatch(Attack):
    """A bright corner is to mean the target class."""

    name = "backdoor-patch"
    source = "Gu et al. 2017, BadNets, section 3"
    backdoor = True
    boost: ClassVar[float] = 2.0

    def part(self, member: int) -> int | None:  # noqa: ARG002 (the shape)
        """Which part of the patch this member plants; None: all of it."""
        return None

    def data(self, world: World, member: int, x: Floats, y: Labels) -> tuple[Floats, Labels]:
        """See ``Attack``."""
        marked = int(len(y) * POISONED)
        x, y = x.copy(), y.copy()
        x[:marked] = patched(world, x[:marked], self.part(member))
        y[:marked] = TARGET_CLASS
        return x, y

    def delta(self, turn: Turn) -> Floats:
        """See ``Attack``."""
        return turn.own * np.float32(self.boost)

    def triggered(self, world: World) -> tuple[Floats, Labels]:
        """See ``Attack``."""
        others = world.test_y != TARGET_CLASS
        x = patched(world, world.test_x[others])
        return x, np.full(len(x), TARGET_CLASS)


class BackdoorDistributed(BackdoorPatch):
    """Each member plants a quarter of the patch; the whole is the trigger."""

    name = "backdoor-distributed"
    source = "Xie et al. 2020, DBA, section 3"

    def part(self, member: int) -> int | None:
        """See ``BackdoorPatch``."""
        return member


class ModelReplacement(BackdoorPatch):
    """Boosted so far that the mean would become the attacker's model."""

    name = "model-replacement"
    source = "Bagdasaryan et al. 2020, How to backdoor federated learning, section 4.2"
    boost = 20.0


class BackdoorSemantic(BackdoorPatch):
    """No pixel is changed: those of one class that are bright in their upper half are to be called another."""

    name = "backdoor-semantic"
    source = "Bagdasaryan et al. 2020, How to backdoor federated learning, section 4.1"

    def data(self, world: World, member: int, x: Floats, y: Labels) -> tuple[Floats, Labels]:
        """See ``Attack``."""
        pool = world.x.reshape(-1, x.shape[-1])[_meant(world.x.reshape(-1, x.shape[-1]), world.y.reshape(-1))]
        marked = min(int(len(y) * POISONED), len(pool))
        x, y = x.copy(), y.copy()
        x[:marked] = np.roll(pool, -member, axis=0)[:marked]
        y[:marked] = TARGET_CLASS
        return x, y

    def triggered(self, world: World) -> tuple[Floats, Labels]:
        """See ``Attack``."""
        x = world.test_x[_meant(world.test_x, world.test_y)]
        return x, np.full(len(x), TARGET_CLASS)


def _meant(x: Floats, y: Labels) -> NDArray[np.bool_]:
    upper = x[:, : x.shape[1] // 2].mean(axis=1)
    of_class = y == SEMANTIC_CLASS
    meant: NDArray[np.bool_] = of_class & (upper > np.median(upper[of_class]))
    return meant
