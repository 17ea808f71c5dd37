"""A convolutional network with batch normalization: its running statistics are averaged as values, apart from the weights."""

from torch import nn

import fluvial

DATA = "digits"
CONFIG = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1}


def model():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
