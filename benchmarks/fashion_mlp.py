"""Fashion-MNIST as the shipped task deals it out, and a network of one hidden layer in numpy: 25,450 parameters.

For measuring algorithms: a round of it takes a hundredth of the processor time that the convolutional network takes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

import learning

CONFIG: Final = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1, "mu": 0.0}
METRIC: Final = "accuracy"
POLICY: Final = {"updates": {"norm_clip": 2.0}, "server": {"learning_rate": 0.8}}
HIDDEN: Final = 32
CLASSES: Final = 10
Model = dict[str, Any]


def data() -> learning.Dataset:
    """The shipped task's examples."""
    return learning.fashion(train_examples=12_000, test_examples=2_000)


def model() -> Model:
    """He et al. 2015's initial weights."""
    return {
        "hidden.weight": np.random.normal(0.0, np.sqrt(2.0 / 784), (784, HIDDEN)).astype("f4"),  # noqa: NPY002 (Fluvial seeds the global generator)
        "hidden.bias": np.zeros(HIDDEN, "f4"),
        "out.weight": np.random.normal(0.0, np.sqrt(2.0 / HIDDEN), (HIDDEN, CLASSES)).astype("f4"),  # noqa: NPY002
        "out.bias": np.zeros(CLASSES, "f4"),
    }


def forward(model: Model, x: Any) -> tuple[Any, Any]:
    """(what the hidden layer gives, the classes' probabilities)."""
    hidden = np.maximum(x @ model["hidden.weight"] + model["hidden.bias"], 0.0)
    scores = hidden @ model["out.weight"] + model["out.bias"]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, shares / shares.sum(axis=1, keepdims=True)


def evaluate(model: Model, data: learning.Examples) -> dict[str, float]:
    """Cross-entropy and accuracy."""
    _, shares = forward(model, data.x.reshape(len(data), -1))
    picked = np.maximum(shares[np.arange(len(data)), data.y], 1e-9)
    return {
        "loss": float(-np.log(picked).mean()),
        "accuracy": float((shares.argmax(axis=1) == data.y).mean()),
    }


def train(model: Model, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    """Minibatch SGD; ``mu`` (w - base) is added to each gradient (FedProx, Li et al. 2020, section 3.2)."""
    base = {name: values.copy() for name, values in model.items()}
    mu, rate, losses = float(config.extra["mu"]), config.learning_rate, []
    x = data.x.reshape(len(data), -1)
    for _ in range(config.epochs):
        order = np.random.permutation(len(data))  # noqa: NPY002
        for start in range(0, len(data), config.batch_size):
            batch = order[start : start + config.batch_size]
            hidden, shares = forward(model, x[batch])
            wanted = np.arange(len(batch)), data.y[batch]
            losses.append(float(-np.log(np.maximum(shares[wanted], 1e-9)).mean()))
            shares[wanted] -= 1.0
            shares /= len(batch)
            back = (shares @ model["out.weight"].T) * (hidden > 0.0)
            gradients = {
                "hidden.weight": x[batch].T @ back,
                "hidden.bias": back.sum(axis=0),
                "out.weight": hidden.T @ shares,
                "out.bias": shares.sum(axis=0),
            }
            for name, gradient in gradients.items():
                model[name] -= (rate * (gradient + mu * (model[name] - base[name]))).astype("f4")
    return {"loss": float(np.mean(losses))}
