"""diabetes: how does the disease go on? A regression among ten clinics, each with patients of one sex and age."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import learning
from learning.tables import clinic_of

DATA: Final = "diabetes"
CONFIG: Final = {"epochs": 2, "batch_size": 16, "learning_rate": 0.03}
METRIC: Final = "r2"


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))


def train(model: nn.Module, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    return learning.fit(model, data, config, nn.functional.mse_loss, **config.extra)


@torch.no_grad()
def evaluate(model: nn.Module, data: learning.Examples) -> dict[str, float]:
    y = torch.from_numpy(data.y)
    errors = model(torch.from_numpy(data.x)) - y
    return {
        "loss": float((errors**2).mean()),
        "mae": float(errors.abs().mean()),
        "r2": float(1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum()),
    }


def cohorts(data: learning.Examples) -> NDArray[Any]:
    return np.asarray(clinic_of(data.x))
