"""A GRU that writes letter by letter, learned from Python's own help texts, which every Python has on board."""

import math
import string
from pydoc_data.topics import topics

import numpy as np
import torch
from torch import nn

import fluvial

CONFIG = {"epochs": 1, "batch_size": 16, "learning_rate": 0.5}
METRIC = ("perplexity", "lower")
LETTERS = string.ascii_lowercase + " .,()\n"
LENGTH = 40  # letters in an example


def data():
    text = "".join(
        letter for _, page in sorted(topics.items()) for letter in page.lower() if letter in LETTERS
    )
    codes = np.array([LETTERS.index(letter) for letter in text[:60_000]], dtype=np.int64)
    count = (len(codes) - 1) // LENGTH
    x = codes[: count * LENGTH].reshape(count, LENGTH)
    y = codes[1 : count * LENGTH + 1].reshape(count, LENGTH)
    held_out = np.arange(count) % 5 == 4
    return fluvial.Dataset(train=(x[~held_out], y[~held_out]), test=(x[held_out], y[held_out]))


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 16)
        self.memory = nn.GRU(16, 48, batch_first=True)
        self.head = nn.Linear(48, len(LETTERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.memory(self.letters(x))[0])


def model():
    return Writer()


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def train(model, data, config):
    return fluvial.fit(model, data, config, loss)


def evaluate(model, data):
    mean = fluvial.score(model, data, loss)["loss"]
    return {"loss": mean, "perplexity": math.exp(mean)}
