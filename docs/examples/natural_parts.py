"""Whose data is whose is known: twelve offices, each a device of its own name, with the forms that came in there.

fluvial run docs/examples/natural_parts.py --simulate
fluvial device run --task natural_parts --region local --id office-3 --data office-3.npz
"""

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

import fluvial


def data():
    x, y = load_digits(return_X_y=True)
    x = x / 16  # the file's order is that in which the forms came in: neighbours are of few writers
    parts = {
        f"office-{number}": (x[rows], y[rows])
        for number, rows in enumerate(np.array_split(np.arange(1440), 12))
    }
    return fluvial.Dataset(parts=parts, test=(x[1440:], y[1440:]))


def local_data(path):
    table = np.load(path)
    return table["x"] / 16, table["y"]


def model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
