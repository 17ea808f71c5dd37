"""charlm: which letter comes next? A small GRU on Python's own help, a device a page (25,824 parameters)."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

import learning
from learning.texts import LETTERS

DATA: Final = "help_pages"
CONFIG: Final = {"local_steps": 6, "batch_size": 16, "learning_rate": 1.5, "clip_norm": 1.0}
METRIC: Final = "accuracy"


class Writer(nn.Module):
    """Letters int64[n, places] in, scores float32[n, letter, place] of the next ones out, as cross_entropy has them."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 24)
        self.memory = nn.GRU(24, 64, batch_first=True)
        self.head = nn.Linear(64, len(LETTERS))

    def forward(self, x: Tensor) -> Tensor:
        """The scores of what follows each letter."""
        outputs: Tensor = self.head(self.memory(self.letters(x))[0])
        return outputs.transpose(1, 2)


def model() -> nn.Module:
    return Writer()


def train(model: nn.Module, data: learning.Examples, config: learning.TrainConfig) -> dict[str, float]:
    return learning.fit(model, data, config, nn.functional.cross_entropy, **config.extra)


@torch.no_grad()
def evaluate(model: nn.Module, data: learning.Examples) -> dict[str, float]:
    outputs, letters = model(torch.from_numpy(data.x)), torch.from_numpy(data.y)
    loss = nn.functional.cross_entropy(outputs, letters).item()
    right = (outputs.argmax(dim=1) == letters).float().mean().item()
    return {"loss": loss, "accuracy": right, "perplexity": math.exp(min(loss, 700.0))}
