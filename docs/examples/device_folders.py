"""A folder with one folder or file a device: each is a device of that name, and a real one reads its own the same way.

fluvial run docs/examples/device_folders.py --simulate
fluvial device run --task device_folders --region local --id site-3 --data /srv/site-3
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

import fluvial

FOLDER = Path(tempfile.gettempdir()) / "fluvial-example-sites"


def data():
    write_once()  # yours are there already
    return fluvial.Dataset(parts=FOLDER / "sites", test=FOLDER / "held-out.csv")


def write_once():
    """sites/site-0/morning.npz, sites/site-0/evening.npz, …, and a table of what is held out."""
    if (FOLDER / "held-out.csv").exists():
        return
    x, y = load_digits(return_X_y=True)
    for number, part in enumerate(np.array_split(np.arange(1440), 8)):
        site = FOLDER / "sites" / f"site-{number}"
        site.mkdir(parents=True, exist_ok=True)
        for name, rows in zip(("morning", "evening"), np.array_split(part, 2), strict=True):
            np.savez(site / f"{name}.npz", x=x[rows] / 16, y=y[rows])
    table = np.column_stack([x[1440:] / 16, y[1440:]])
    names = [*(f"pixel{number}" for number in range(64)), "label"]
    np.savetxt(FOLDER / "held-out.csv", table, delimiter=",", header=",".join(names), comments="", fmt="%g")


def model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model, data, config):
    return fluvial.fit(model, data, config)


def evaluate(model, data):
    return fluvial.score(model, data)
