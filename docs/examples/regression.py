"""Tabular regression: how a diabetes goes on after a year, judged by r2. The data ships with scikit-learn.

B. Efron et al., Least Angle Regression, Annals of Statistics, 2004.
"""

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import fluvial

CONFIG = {"epochs": 2, "batch_size": 16, "learning_rate": 0.03}
METRIC = "r2"


def data():
    x, y = load_diabetes(return_X_y=True)
    x, y = x / x.std(axis=0), (y - y.mean()) / y.std()
    held_out = np.arange(len(x)) % 5 == 4
    return fluvial.Dataset(train=(x[~held_out], y[~held_out]), test=(x[held_out], y[held_out]))


def model():
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))


def train(model, data, config):
    return fluvial.fit(model, data, config, nn.functional.mse_loss)


@torch.no_grad()
def evaluate(model, data):
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    errors = model(x) - y
    return {
        "loss": float((errors**2).mean()),
        "mae": float(errors.abs().mean()),
        "r2": float(1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum()),
    }
