"""LoRA: a frozen base with low-rank adapters. Updates hold the adapters and the head alone, 4 % of the model.

E. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, section 4.1.
"""

import torch
from torch import nn

import fluvial

DATA = "digits"
CONFIG = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1}
RANK = 4


class Adapted(nn.Module):
    """A linear layer W x + b + B A x, of which only A and B are trained."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(RANK, base.in_features) / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


def model():
    return nn.Sequential(
        Adapted(nn.Linear(64, 256)), nn.ReLU(), Adapted(nn.Linear(256, 256)), nn.ReLU(), nn.Linear(256, 10)
    )


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
