"""Task files of many sorts of modules, as text, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learning.task import load_task

if TYPE_CHECKING:
    from pathlib import Path

    from learning import Task

HEAD = """
import functools
import numpy as np
import torch
from torch import nn
import learning

CONFIG = {"epochs": 1, "batch_size": 8, "learning_rate": 0.05}

def data():
    r = np.random.default_rng(1)
    x = r.normal(size=(200, 4))
    return learning.Dataset(train=(x[:160], x[:160, 0] > 0), test=(x[160:], x[160:, 0] > 0))

def score(model, data):
    with torch.no_grad():
        out = model(torch.from_numpy(data.x).to(next(model.parameters()).dtype)).float()
        y = torch.from_numpy(data.y)
        return {"loss": nn.functional.cross_entropy(out, y).item()}

def train(model, data, config):
    dtype = next(model.parameters()).dtype
    out = model(torch.from_numpy(data.x).to(dtype)).float()
    nn.functional.cross_entropy(out, torch.from_numpy(data.y)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.5 * parameter.grad
    return {"loss": 0.5}

def evaluate(model, data):
    return score(model, data)
"""
PLAIN = "nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))"
MODULES = {
    "float32": PLAIN,
    "float64": f"{PLAIN}.double()",
    "bfloat16": f"{PLAIN}.to(torch.bfloat16)",
    "float16": f"{PLAIN}.to(torch.float16)",
    "batch norm": "nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))",
    "dropout": "nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2))",
    "weight norm": "nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 2)))",
    "parametrized": "nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))",
    "spectral norm": "nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)))",
}


def file_of(expression: str, more: str = "") -> str:
    return f"{HEAD}\ndef model():\n    return {expression}\n{more}"


TIED = f"""{HEAD}
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.out(self.gain * self.b(torch.relu(self.a(x))))

def model():
    return Tied()
"""
HOOKED = f"""{HEAD}
def model():
    net = {PLAIN}
    seen = []
    net[0].register_forward_hook(lambda module, inputs, output: seen.append(1) or output * len(seen))
    return net
"""
KEPT = file_of(PLAIN).replace("def model", "@functools.cache\ndef model")

FROZEN = f"""{HEAD}
class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 64).requires_grad_(False)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), 1))
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        return self.head(self.norm(torch.relu(self.base(x))))

def model():
    return Backbone()
"""
IDLE = """
def train(model, data, config):
    return {"loss": 0.5}
"""


def written(folder: Path, text: str, name: str = "own") -> Task:
    """The task of a file with this text."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return load_task(str(path))
