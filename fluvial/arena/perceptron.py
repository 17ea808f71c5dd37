"""The arena's model: a perceptron of one hidden layer, trained in numpy for many devices in one go.

A model is one flat float32[P]: W1 (inputs × hidden), b1, W2 (hidden × classes), b2, each in C order. Plain minibatch
SGD on the cross-entropy, ReLU between the layers: what the shipped digits task does, without the time that a framework
takes for each of its small steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aggregation.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Its sizes, and how a device trains it."""

    inputs: int
    hidden: int
    classes: int
    epochs: int
    batch_size: int
    learning_rate: float

    @property
    def layout(self) -> Layout:
        """The tensors in the flat array's order."""
        return Layout.of(
            [
                ("hidden.weight", (self.inputs, self.hidden)),
                ("hidden.bias", (self.hidden,)),
                ("classes.weight", (self.hidden, self.classes)),
                ("classes.bias", (self.classes,)),
            ]
        )

    def first(self, rng: np.random.Generator) -> Floats:
        """A model to begin with, float32[P]: uniform by the layers' inputs, as torch's linear layers begin."""
        parts = []
        for rows, columns in ((self.inputs, self.hidden), (self.hidden, self.classes)):
            bound = rows**-0.5
            parts += [rng.uniform(-bound, bound, rows * columns), rng.uniform(-bound, bound, columns)]
        return np.concatenate(parts).astype(np.float32)

    def deltas(self, base: Floats, x: Floats, y: Labels, rng: np.random.Generator) -> Floats:
        """Local minus base after training, float32[D, P], of D devices with n examples each.

        ``x`` float32[D, n, inputs], ``y`` int64[D, n].
        """
        devices, examples = y.shape
        flat = np.tile(base, (devices, 1))
        rows = np.arange(devices)[:, None]
        size = min(self.batch_size, examples)
        for _ in range(self.epochs):
            order = rng.permuted(np.tile(np.arange(examples), (devices, 1)), axis=1)
            for begin in range(0, examples - size + 1, size):
                chosen = order[:, begin : begin + size]
                self._step(flat, x[rows, chosen], y[rows, chosen])
        return flat - base

    def _step(self, flat: Floats, x: Floats, y: Labels) -> None:
        w1, b1, w2, b2 = self._parts(flat)
        devices, size = y.shape
        hidden = np.maximum(x @ w1 + b1[:, None, :], 0)
        wrong = self._softmax(hidden @ w2 + b2[:, None, :])
        wrong[np.arange(devices)[:, None], np.arange(size)[None, :], y] -= 1
        wrong *= np.float32(self.learning_rate / size)
        back = (wrong @ w2.transpose(0, 2, 1)) * (hidden > 0)
        w2 -= hidden.transpose(0, 2, 1) @ wrong
        b2 -= wrong.sum(axis=1)
        w1 -= x.transpose(0, 2, 1) @ back
        b1 -= back.sum(axis=1)

    def _parts(self, flat: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Views of W1 [D, inputs, hidden], b1, W2 and b2 of float32[D, P]."""
        devices, a = len(flat), self.inputs * self.hidden
        b = a + self.hidden
        c = b + self.hidden * self.classes
        return (
            flat[:, :a].reshape(devices, self.inputs, self.hidden),
            flat[:, a:b],
            flat[:, b:c].reshape(devices, self.hidden, self.classes),
            flat[:, c:],
        )

    @staticmethod
    def _softmax(scores: Floats) -> Floats:
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def answers(self, flat: Floats, x: Floats) -> Labels:
        """The class that the model float32[P] names for each of ``x`` float32[n, inputs]."""
        w1, b1, w2, b2 = self._parts(flat[None])
        chosen: Labels = (np.maximum(x @ w1[0] + b1[0], 0) @ w2[0] + b2[0]).argmax(axis=-1)
        return chosen
