"""digits: which digit is it? A small perceptron on scikit-learn's handwritten digits (4,810 parameters)."""

from __future__ import annotations

from typing import Final

from torch import nn

import learning

DATA: Final = "digits"
CONFIG: Final = {"epochs": 4, "batch_size": 8, "learning_rate": 0.15}
METRIC: Final = "accuracy"
POLICY: Final = {"updates": {"norm_clip": 1.5}, "server": {"learning_rate": 0.8}}


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train(model: nn.Module, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    return learning.fit(model, data, config, nn.functional.cross_entropy, **config.extra)


def evaluate(model: nn.Module, data: learning.Examples) -> dict[str, float]:
    return learning.score(model, data, nn.functional.cross_entropy)
