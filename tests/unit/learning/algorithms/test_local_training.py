"""``fit``: optimizers by name, clipped gradients, local steps; and that who asks for nothing gets what he got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import learning
from aggregation.errors import UsageProblem
from learning.algorithms.optimizers import optimizer_names
from learning.config import TrainConfig
from learning.datasets import Examples
from tests.conformance.algorithms import Linear, change, examples, squares

CONFIG = TrainConfig(seed=5, version=3, epochs=3, batch_size=8, learning_rate=0.01)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))


def labelled(count: int = 29) -> Examples:
    random = np.random.default_rng(1)
    return Examples(random.normal(size=(count, 6)), random.integers(0, 3, count))


def naive(step_of: Callable[[list[nn.Parameter]], Callable[[], object]], clip: float | None = None) -> bytes:
    """A round of ``CONFIG`` as one would write it by hand."""
    model, data = net(), labelled()
    parameters = list(model.parameters())
    step = step_of(parameters)
    order_of = np.random.default_rng([CONFIG.seed, CONFIG.version])
    model.train()
    for _ in range(CONFIG.epochs):
        order = order_of.permutation(len(data))
        for start in range(0, len(data), CONFIG.batch_size):
            batch = torch.from_numpy(order[start : start + CONFIG.batch_size])
            model.zero_grad()
            outputs = model(torch.from_numpy(data.x)[batch])
            nn.functional.cross_entropy(outputs, torch.from_numpy(data.y)[batch]).backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            step()
    return state(model)


def state(model: nn.Module) -> bytes:
    return b"".join(value.detach().numpy().tobytes() for value in model.parameters())


def fitted(**settings: Any) -> bytes:
    model = net()
    learning.fit(model, labelled(), CONFIG, **settings)
    return state(model)


def by_hand(parameters: list[nn.Parameter]) -> Callable[[], object]:
    def step() -> None:
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=-CONFIG.learning_rate)

    return step


def test_who_asks_for_nothing_gets_plain_sgd_bit_for_bit() -> None:
    assert fitted() == naive(by_hand)
    assert fitted(algorithm="fedavg", optimizer="sgd") == naive(by_hand)


def test_every_optimizer_of_torch_is_there_by_its_name() -> None:
    assert {"adam", "adamw", "adagrad", "rmsprop", "sgd"} <= set(optimizer_names())
    classes = {made.__name__.lower(): made for made in vars(torch.optim).values() if isinstance(made, type)}
    for name in optimizer_names():
        assert fitted(optimizer=name) == naive(lambda p, n=name: classes[n](p, lr=0.01).step), name  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
            lambda p: torch.optim.SGD(p, 0.01, 0.9, 0.0, 0.01, nesterov=True),
        ),
        (
            {"optimizer": "adam", "betas": (0.8, 0.9), "eps": 1e-3},
            lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.9), 1e-3),
        ),
        (
            {"optimizer": torch.optim.AdamW, "weight_decay": 0.2},
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.2),
        ),
        (
            {"optimizer": lambda parameters, lr: torch.optim.Adagrad(parameters, lr=2 * lr)},
            lambda p: torch.optim.Adagrad(p, lr=0.02),
        ),
    ],
)
def test_an_optimizer_has_its_own_settings(given: dict[str, Any], made: Callable[..., Any]) -> None:
    assert fitted(**given) == naive(lambda parameters: made(parameters).step)


def test_an_optimizer_begins_anew_in_each_round() -> None:
    assert fitted(optimizer="adam") == fitted(optimizer="adam")


def test_gradients_are_clipped_by_their_norm_over_all_parameters() -> None:
    assert fitted(clip_norm=0.05) == naive(by_hand, clip=0.05)
    assert fitted(clip_norm=0.05) != fitted()
    assert fitted(clip_norm=1e6) == fitted()
    config = TrainConfig(epochs=1, batch_size=64, learning_rate=0.5)
    assert np.linalg.norm(change(config)) > 1.0
    assert np.linalg.norm(change(config, clip_norm=0.2)) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (3, 1), (4, 1), (5, 2), (12, 3), (13, 4)])
def test_local_steps_are_so_many_in_as_many_passes_as_they_take(steps: int, passes: int) -> None:
    seen: list[int] = []

    def counted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return squares(outputs, targets)

    config = TrainConfig(seed=1, epochs=50, batch_size=5)
    metrics = learning.fit(Linear(), examples(17), config, counted, local_steps=steps)
    assert metrics["local_steps"] == steps
    assert seen == ([5, 5, 5, 2] * passes)[:steps]


def test_whole_passes_as_steps_are_epochs() -> None:
    assert fitted(local_steps=12) == fitted()


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"optimizer": "adm"}, "no optimizer 'adm'", "did you mean optimizer='adam'"),
        ({"optimizer": "lbfgs"}, "no optimizer 'lbfgs'", ""),
        ({"optimizer": 3}, "a name, a class or a function", ""),
        ({"optimizer": torch.optim.LBFGS}, "whose step\\(\\) needs nothing", "loop of your own"),
        ({"optimizer": lambda parameters, lr: None}, "the optimizer is NoneType", ""),
        ({"optimizer": "adam", "momentum": 0.9}, "no setting 'momentum': adam has betas", ""),
        ({"optimizer": "adam", "beta": (0.9, 0.9)}, "no setting 'beta'", "did you mean 'betas'?"),
        ({"clipnorm": 1.0}, "no setting 'clipnorm'", "did you mean 'clip_norm'?"),
        ({"momentum": -1.0}, "sgd does not take its settings: Invalid momentum", ""),
        ({"momentum": "big"}, "sgd does not take its settings", ""),
        ({"maximize": True}, "no setting 'maximize'", ""),
        ({"lr": 0.3}, "no setting 'lr'", ""),
        *(
            ({"local_steps": bad}, "local_steps must be an integer from 1", "")
            for bad in (0, -1, 1.5, True, "3")
        ),
        *(
            ({"clip_norm": bad}, "clip_norm must be a number above 0", "")
            for bad in (0, -1.0, float("nan"), "1")
        ),
    ],
)
def test_what_cannot_be_is_refused_and_named(settings: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageProblem, match=message) as caught:
        fitted(**settings)
    assert caught.value.error_id == "FLV-2207"
    assert hint in caught.value.hint


@pytest.mark.parametrize(("name", "shape"), [("digits", (64,)), ("fashion", (1, 28, 28))])
def test_shipped_tasks_take_all_of_it_from_their_settings(name: str, shape: tuple[int, ...]) -> None:
    task = learning.load_task(name, {"algorithm": "fedprox", "mu": 0.5, "clip_norm": 1.0, "local_steps": 2})
    data = Examples(np.random.default_rng(0).random((20, *shape)), np.arange(20) % 10)
    assert task.train(task.model(), data, task.config)["local_steps"] == 2
    wrong = learning.load_task(name, {"algorithm": "fedpro"})
    with pytest.raises(UsageProblem, match="no local algorithm"):
        wrong.train(wrong.model(), data, wrong.config)
