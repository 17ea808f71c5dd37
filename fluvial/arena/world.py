"""What the rounds of one seed share: data, its split, the model to begin with, the paces, the root set.

The same (task, devices, alpha, seed) give the same world to every attack and every defence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.errors import UsageProblem
from fluvial.arena.perceptron import Perceptron

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fluvial.arena.perceptron import Floats, Labels

ROOT_EXAMPLES: Final = 100
ROOT_CLASSES: Final = 10
PACE_SPREAD: Final = 0.5
"""Sigma of the log-normal pace of devices, and of each of their rounds."""
FASHION_EXAMPLES: Final = 4000
TASKS: Final = ("digits", "fashion")


@dataclass(frozen=True, slots=True)
class Root:
    """The guardian's root set: examples of the first so many classes. Of the training data; no device has them."""

    examples: int = ROOT_EXAMPLES
    classes: int = ROOT_CLASSES


WHOLE_ROOT: Final = Root()


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """``x`` float32[D, n, inputs] and ``y`` int64[D, n]: device d's examples.

    ``paces`` float64[D]: median seconds of a round.
    """

    task: str
    model: Perceptron
    side: int
    x: Floats
    y: Labels
    test_x: Floats
    test_y: Labels
    root_x: Floats
    root_y: Labels
    first: Floats
    paces: NDArray[np.float64]
    norm_clip: float
    server_rate: float

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.y)


def _data(task: str) -> tuple[Perceptron, int, Floats, Labels, Floats, Labels, float]:
    from learning.datasets import digits, fashion

    if task == "digits":
        data = digits()
        model = Perceptron(64, 64, 10, epochs=4, batch_size=8, learning_rate=0.15)
        return model, 8, data.train.x, data.train.y, data.test.x, data.test.y, 1.5
    if task == "fashion":
        data = fashion(FASHION_EXAMPLES, 1000)
        model = Perceptron(196, 48, 10, epochs=2, batch_size=10, learning_rate=0.1)
        x, test = (_halved(side.x) for side in (data.train, data.test))
        return model, 14, x, data.train.y, test, data.test.y, 2.0
    raise UsageProblem(
        "FLV-2205", f"the arena has no task {task!r}", hint=f"choose one of {', '.join(TASKS)}"
    )


def _halved(images: Floats) -> Floats:
    """28 × 28 to 14 × 14: means of two by two, flat."""
    n = len(images)
    halved: Floats = images.reshape(n, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(n, 196)
    return halved


@lru_cache(maxsize=8)
def world(task: str, devices: int, alpha: float, seed: int, root: Root = WHOLE_ROOT) -> World:
    """The world of one seed."""
    from learning.partition import dirichlet_split

    model, side, x, y, test_x, test_y, norm_clip = _data(task)
    rng = np.random.default_rng((seed, 7))
    order = rng.permutation(len(y))
    trusted = order[y[order] < root.classes][: root.examples]
    rest = np.setdiff1d(order, trusted)
    parts = dirichlet_split(y[rest], devices, alpha, seed, 1)
    smallest = min(len(part) for part in parts)
    chosen = np.stack([rest[rng.permutation(part)[:smallest]] for part in parts])
    return World(
        task=task,
        model=model,
        side=side,
        x=x[chosen],
        y=y[chosen],
        test_x=test_x,
        test_y=test_y,
        root_x=x[trusted],
        root_y=y[trusted],
        first=model.first(rng),
        paces=rng.lognormal(0.0, PACE_SPREAD, devices),
        norm_clip=norm_clip,
        server_rate=0.8,
    )
