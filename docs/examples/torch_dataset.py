"""The data as torch has it: a Dataset of one's own, and a DataLoader; batches of one's own in training.

fluvial run docs/examples/torch_dataset.py --simulate
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fluvial

CONFIG = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1}


class Digits(Dataset):
    """Items are pairs (image, label); whatever a real one opens and decodes happens here."""

    def __init__(self, rows: slice) -> None:
        self.x, self.y = (array[rows] for array in load_digits(return_X_y=True))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index):
        return torch.tensor(self.x[index] / 16, dtype=torch.float32).reshape(1, 8, 8), int(self.y[index])


def data():
    held_out = DataLoader(Digits(slice(1440, None)), batch_size=100)
    return fluvial.Dataset(train=Digits(slice(0, 1440)), test=held_out)


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model, data, config):
    examples = TensorDataset(torch.from_numpy(data.x), torch.from_numpy(data.y))
    loader = DataLoader(examples, batch_size=config.batch_size, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    for _ in range(config.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
    return {"loss": loss.item()}


def evaluate(model, data):
    return fluvial.score(model, data)
