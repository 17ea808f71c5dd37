"""A device maker's program: fetch the model, train it with numpy alone, publish the update, read its verdict.

python docs/examples/device.py --key KEY
"""

# ruff: noqa: INP001, T201
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from fluvial import Device

LEARNING_RATE = 0.1
EPOCHS = 3


def arguments() -> argparse.Namespace:
    """Whose key, which task, how often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--region", default="eu")
    parser.add_argument("--key", type=Path, required=True, help="what `fluvial ca issue` wrote")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def own_examples(device_id: str, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """What this device has seen: x float32[n, 64] in 0 … 1, y int64[n]. They never leave it."""
    random = np.random.default_rng(list(device_id.encode()))
    digits = load_digits()
    mine = random.choice(len(digits.target), count, replace=False)
    return (digits.data[mine] / 16).astype(np.float32), digits.target[mine]


def trained(
    start: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """The model after some steps of gradient descent, and its last loss. Two layers, ReLU, cross-entropy."""
    w1, b1, w2, b2 = (start[name].copy() for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    loss = 0.0
    for _ in range(EPOCHS):
        hidden = np.maximum(x @ w1.T + b1, 0)
        scores = hidden @ w2.T + b2
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = float(-np.log(chances[np.arange(len(y)), y]).mean())
        slope = (chances - np.eye(10)[y]) / len(y)
        slope_hidden = (slope @ w2) * (hidden > 0)
        w2 -= LEARNING_RATE * slope.T @ hidden
        b2 -= LEARNING_RATE * slope.sum(axis=0)
        w1 -= LEARNING_RATE * slope_hidden.T @ x
        b1 -= LEARNING_RATE * slope_hidden.sum(axis=0)
    return {"0.weight": w1, "0.bias": b1, "2.weight": w2, "2.bias": b2}, loss


def main() -> None:
    """Contribute to so many versions, one after the other."""
    chosen = arguments()
    with Device.open(task=chosen.task, region=chosen.region, key=chosen.key) as device:
        x, y = own_examples(device.device_id)
        version = -1
        for _ in range(chosen.rounds):
            base = device.fetch_selected(newer_than=version)
            version = base.version
            local, loss = trained(device.arrays(base), x, y)

            contribution = device.contribution(base, local, num_examples=len(x), loss=loss)
            receipt = device.publish(base, contribution)
            verdict = device.verdict(receipt)
            print(f"version {version}: loss {loss:.4f}, {receipt.place} {verdict.outcome} {verdict.detail}")


if __name__ == "__main__":
    main()
