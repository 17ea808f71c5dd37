"""Flower apps for tests, and the environment with the real ``flwr`` in which they run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.other_environments import python_with

VENDORED: Final = Path(__file__).parent / "vendor" / "flower"

DIGITS: Final = '''
"""In place of the template's task.py, which fetches CIFAR-10: the same functions, on the digits of scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(self.norm(x))))


class Digits(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"img": x, "label": y}


def _digits(rows):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    return Digits(x[rows], y[rows])


def load_data(partition_id, num_partitions, batch_size):
    rows = np.random.default_rng(0).permutation(1500)[partition_id::num_partitions]
    part, held = rows[: len(rows) * 4 // 5], rows[len(rows) * 4 // 5 :]
    return DataLoader(_digits(part), batch_size=batch_size, shuffle=True), DataLoader(_digits(held), batch_size=32)


def load_centralized_dataset():
    return DataLoader(_digits(np.arange(1500, 1797)), batch_size=128)


def train(net, trainloader, epochs, lr, device):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    losses = []
    for _ in range(epochs):
        for batch in trainloader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(batch["img"]), batch["label"])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test(net, testloader, device):
    net.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for batch in testloader:
            outputs = net(batch["img"])
            loss += nn.functional.cross_entropy(outputs, batch["label"], reduction="sum").item()
            right += (outputs.argmax(1) == batch["label"]).sum().item()
    return loss / len(testloader.dataset), right / len(testloader.dataset)
'''

LINEAR: Final = '''
"""A NumPyClient as Flower's tutorials had it before there were messages: a straight line, y = 3x + 1, from points."""

import numpy as np
from flwr.client import ClientApp, NumPyClient


class Line(NumPyClient):
    def __init__(self, number, of):
        self.x = np.random.default_rng(number).uniform(-1, 1, 20 + number)
        self.number, self.of = number, of

    def get_parameters(self, config):
        return [np.zeros(1, np.float32), np.zeros(1, np.float32)]

    def fit(self, parameters, config):
        a, b = parameters
        for _ in range(int(config.get("steps", 10))):
            error = a * self.x + b - (3 * self.x + 1)
            a = a - 0.3 * (error * self.x).mean()
            b = b - 0.3 * error.mean()
        return self.answer([a, b]), len(self.x), {"mse": float((error**2).mean())}

    def answer(self, arrays):
        return arrays

    def evaluate(self, parameters, config):
        a, b = parameters
        error = a * self.x + b - (3 * self.x + 1)
        return float((error**2).mean()), len(self.x), {"mae": float(abs(error).mean()), "partition": self.number}


def client_fn(context):
    return Line(context.node_config["partition-id"], context.node_config["num-partitions"]).to_client()


app = ClientApp(client_fn=client_fn)
'''

LINEAR_SERVER: Final = '''
"""A ServerApp of before there were messages, with a first model, a configuration, and an evaluation of its own."""

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg


def evaluate(server_round, parameters, config):
    return abs(float(parameters[0][0]) - 3), {"slope_error": abs(float(parameters[0][0]) - 3)}


def server_fn(context):
    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.full(1, 0.5, np.float32), np.zeros(1, np.float32)]),
        evaluate_fn=evaluate,
        on_fit_config_fn=lambda server_round: {"steps": 5},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))


app = ServerApp(server_fn=server_fn)
'''


def python_with_flower() -> Path:
    """The interpreter of an environment with the real ``flwr``."""
    return python_with("Flower", "flwr==1.42.0")


def template(name: str, folder: Path) -> Path:
    """A copy of a vendored template in ``folder``, the one of torch with the digits."""
    made = folder / name
    shutil.copytree(VENDORED / name, made)
    if name == "quickstart-pytorch":
        (made / "pytorchexample" / "task.py").write_text(DIGITS)
    return made
