"""Data in columns by name, as Hugging Face's ``datasets`` and pandas have it.

fluvial run docs/examples/columns.py --simulate

With ``datasets`` it would be ``load_dataset("mnist", split="train").with_format("numpy")`` in the place of a dict: the
column that is called label is the target, and of several others the one that is meant is named.
"""

from sklearn.datasets import load_digits
from torch import nn

import fluvial


def rows(part):
    x, y = load_digits(return_X_y=True)
    return {"image": x[part] / 16, "writer": list(range(len(x[part]))), "label": y[part]}


def data():
    train, test = rows(slice(0, 1440)), rows(slice(1440, None))
    return fluvial.Dataset(
        train=fluvial.Examples.of(train, x="image"), test=fluvial.Examples.of(test, x="image", y="label")
    )


def model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
