"""A torch model of one's own: a residual network on handwritten digits, trained by a loop of one's own."""

import torch
from torch import nn

import fluvial

DATA = "digits"
CONFIG = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05}


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def model():
    return nn.Sequential(nn.Linear(64, 48), Residual(48), Residual(48), nn.Linear(48, 10))


def train(model, data, config):
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=0.5)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    total = 0.0
    for _ in range(config.epochs):
        for batch in torch.randperm(len(data)).split(config.batch_size):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            total += loss.item() * len(batch)
    return {"loss": total / (config.epochs * len(data))}


def evaluate(model, data):
    return fluvial.score(model, data)
