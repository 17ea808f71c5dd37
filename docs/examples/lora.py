"""LoRA: a frozen base with low-rank adapters. Updates hold the adapters and the head alone, 7 % of the model.

E. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, section 4.1.
"""

from torch import nn

import fluvial

DATA = "digits"
CONFIG = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1}


def model():
    base = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )  # of your own: with weights of a file, as in pretrained.py
    return fluvial.lora(base, rank=4, alpha=8, targets=("0", "2"), trained="4.*")


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
