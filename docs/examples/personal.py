"""A head for each device on a body that all share: private layers, which no update has.

M. Arivazhagan et al., Federated Learning with Personalization Layers, 2019; with `--set algorithm=fedrep`,
L. Collins et al., Exploiting Shared Representations for Personalized Federated Learning, 2021.
"""

import numpy as np
from torch import nn

import fluvial

CONFIG = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1}
PRIVATE = ["head.*"]


def data():
    digits = fluvial.load_task("digits").data()
    parts = {}
    for number in range(8):  # each numbers the digits in a way of its own
        ways = np.random.default_rng(number).permutation(10)
        mine = digits.train.subset(np.arange(number, len(digits.train), 8))
        parts[f"person-{number}"] = (mine.x, ways[mine.y])
    return fluvial.Dataset(parts=parts, test=digits.test)


def model():
    net = nn.Sequential()
    net.add_module("body", nn.Sequential(nn.Linear(64, 32), nn.ReLU()))
    net.add_module("head", nn.Linear(32, 10))
    return net


def train(model, data, config):
    return fluvial.fit(model, data, config, private=PRIVATE, held_out=0.2, **config.extra)


def evaluate(model, data):
    return fluvial.personal_score(model, data, PRIVATE)
