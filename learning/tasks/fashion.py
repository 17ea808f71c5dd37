"""fashion: which garment is it? A small convolutional network on Fashion-MNIST."""

from __future__ import annotations

from typing import Final

from torch import nn

import learning

CONFIG: Final = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1}
METRIC: Final = "accuracy"
POLICY: Final = {"updates": {"norm_clip": 2.0}, "server": {"learning_rate": 0.8}}


def data() -> learning.Dataset:
    return learning.fashion(train_examples=12_000, test_examples=2_000)


def model() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train(model: nn.Module, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    return learning.fit(model, data, config, nn.functional.cross_entropy, **config.extra)


def evaluate(model: nn.Module, data: learning.Examples) -> dict[str, float]:
    return learning.score(model, data, nn.functional.cross_entropy)
