"""The laws of local algorithms. Every member inherits them and says its formulas, as its paper has them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from aggregation.errors import UsageProblem
from learning.algorithms import ALGORITHMS
from learning.config import TrainConfig
from learning.datasets import Examples
from learning.helpers import fit

Weights = NDArray[np.float64]
FEATURES = 3
ROUNDS = {
    "one step": {"epochs": 1, "batch_size": 64},
    "many steps, the last batch short": {"epochs": 3, "batch_size": 5},
    "one example a step": {"epochs": 2, "batch_size": 1},
}
MOMENTA = [0.0, 0.5, 0.9]


class Linear(nn.Module):
    """x w in float64, so that a twin in numpy agrees to many digits."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() @ self.w


def squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets.double()) ** 2).mean()


def examples(count: int = 17, seed: int = 3) -> Examples:
    random = np.random.default_rng(seed)
    return Examples(random.normal(size=(count, FEATURES)), random.normal(size=count))


def change(config: TrainConfig, data: Examples | None = None, **settings: Any) -> Weights:
    """What a round of ``fit`` changes in ``Linear``."""
    model = Linear()
    before = model.w.detach().clone()
    fit(model, examples() if data is None else data, config, squares, **settings)
    return (model.w.detach() - before).numpy()


@dataclass(frozen=True)
class Round:
    """A round's numbers, for a twin. steps: how many it had."""

    steps: int
    learning_rate: float
    momentum: float
    mu: float = 0.0


class AlgorithmLaws:
    """What holds for every local algorithm."""

    name: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}

    def change(self, config: TrainConfig, **settings: Any) -> Weights:
        """What a round of this algorithm changes of what is published."""
        return change(config, algorithm=self.name, **self.settings | settings)

    @abstractmethod
    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        """What each step goes by."""

    @abstractmethod
    def naive_change(self, changed: Weights, done: Round) -> Weights:
        """What is published of local − base."""

    def naive_round(self, config: TrainConfig, momentum: float) -> Weights:
        """A round in numpy, with the gradient of the mean square written out."""
        data = examples()
        base = np.array([0.5, -1.0, 2.0])
        weights, velocity, steps = base.copy(), np.zeros(FEATURES), 0
        order_of = np.random.default_rng([config.seed, config.version])
        for _ in range(config.epochs):
            order = order_of.permutation(len(data))
            for start in range(0, len(data), config.batch_size):
                batch = order[start : start + config.batch_size]
                x, y = data.x[batch].astype(np.float64), data.y[batch].astype(np.float64)
                gradient = 2 * x.T @ (x @ weights - y) / len(batch)
                velocity = momentum * velocity + self.naive_gradient(gradient, weights, base)
                weights = weights - config.learning_rate * velocity
                steps += 1
        return self.naive_change(weights - base, Round(steps, config.learning_rate, momentum))

    def test_it_stands_in_the_table_under_its_own_name(self) -> None:
        assert ALGORITHMS[self.name](**self.settings).name == self.name

    @pytest.mark.parametrize("momentum", MOMENTA)
    @pytest.mark.parametrize("which", ROUNDS)
    def test_a_round_is_the_papers_formula(self, which: str, momentum: float) -> None:
        config = TrainConfig(seed=4, version=2, learning_rate=0.05, **ROUNDS[which])  # type: ignore[arg-type]
        got = self.change(config, momentum=momentum)
        assert got == pytest.approx(self.naive_round(config, momentum), rel=1e-9, abs=1e-12)

    def test_the_same_round_gives_the_same_bits(self) -> None:
        config = TrainConfig(seed=4, version=2)
        first = self.change(config)
        assert self.change(config).tobytes() == first.tobytes()

    def test_each_of_its_settings_has_bounds_and_an_error_that_names_it(self) -> None:
        for key in self.settings:
            for bad in (float("nan"), float("inf"), -1.0, 1e300, "much", None, True):
                with pytest.raises(UsageProblem, match=f"{self.name} needs {key}") as caught:
                    self.change(TrainConfig(), **{key: bad})
                assert caught.value.error_id == "FLV-2207"
                assert key in caught.value.hint
