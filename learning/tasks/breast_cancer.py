"""breast_cancer: is the tumour benign? A small perceptron on a table of 30 measures (530 parameters)."""

from __future__ import annotations

from typing import Final

from torch import nn

import learning

DATA: Final = "breast_cancer"
CONFIG: Final = {"epochs": 4, "batch_size": 8, "learning_rate": 0.05}
METRIC: Final = "accuracy"


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 2))


def train(model: nn.Module, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    return learning.fit(model, data, config, nn.functional.cross_entropy, **config.extra)


def evaluate(model: nn.Module, data: learning.Examples) -> dict[str, float]:
    return learning.score(model, data, nn.functional.cross_entropy)
