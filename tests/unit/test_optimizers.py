"""Server optimizers against the papers' formulas, written a second time with Python floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.optimizers import initial_state, server_step
from aggregation.policy import ServerPolicy

P = 11


def deltas(steps: int) -> list[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=P) * 10.0 ** rng.integers(-6, 3, P) for _ in range(steps)]


def run(server: ServerPolicy, steps: int = 5) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    model = np.linspace(-1, 1, P).astype(np.float32)
    state: dict[str, Any] = initial_state(server, P)
    for one in deltas(steps):
        model, state = server_step(server, model, state, one)
    return model, state


def test_plain_sgd_adds_the_mean_delta_times_the_learning_rate() -> None:
    model, state = run(ServerPolicy(learning_rate=0.5))
    expected = np.linspace(-1, 1, P).astype(np.float32)
    for one in deltas(5):
        expected = (expected.astype(np.float64) + 0.5 * one).astype(np.float32)
    assert model.tobytes() == expected.tobytes()
    assert state == {}


def test_momentum_follows_its_formula() -> None:
    model, state = run(ServerPolicy(learning_rate=0.5, momentum=0.9))
    for i in range(P):
        x, velocity = float(np.linspace(-1, 1, P).astype(np.float32)[i]), 0.0
        for one in deltas(5):
            velocity = 0.9 * velocity + float(one[i])
            x = float(np.float32(x + 0.5 * velocity))
        assert float(model[i]) == x
        assert float(state["velocity"][i]) == velocity


def test_adam_follows_its_formula() -> None:
    model, state = run(ServerPolicy(optimizer="adam", learning_rate=0.01))
    for i in range(P):
        x, m, v = float(np.linspace(-1, 1, P).astype(np.float32)[i]), 0.0, 0.0
        for one in deltas(5):
            d = float(one[i])
            m = 0.9 * m + (1.0 - 0.9) * d
            v = 0.99 * v + (1.0 - 0.99) * (d * d)
            x = float(np.float32(x + 0.01 * (m / (math.sqrt(v) + 0.001))))
        assert float(model[i]) == x
        assert (float(state["m"][i]), float(state["v"][i])) == (m, v)


@pytest.mark.parametrize(
    "server", [ServerPolicy(), ServerPolicy(momentum=0.9), ServerPolicy(optimizer="adam")]
)
def test_a_step_leaves_its_arguments_as_they_are(server: ServerPolicy) -> None:
    model, state = np.ones(P, dtype=np.float32), initial_state(server, P)
    before = (model.tobytes(), {name: array.tobytes() for name, array in state.items()})
    server_step(server, model, state, deltas(1)[0])
    assert before == (model.tobytes(), {name: array.tobytes() for name, array in state.items()})


def test_another_optimizers_state_is_replaced() -> None:
    adam = ServerPolicy(optimizer="adam")
    model = np.zeros(P, dtype=np.float32)
    fresh = server_step(adam, model, initial_state(adam, P), deltas(1)[0])
    after_sgd = server_step(adam, model, {"velocity": np.ones(P)}, deltas(1)[0])
    assert fresh[0].tobytes() == after_sgd[0].tobytes()


def test_adam_does_not_divide_by_zero() -> None:
    adam = ServerPolicy(optimizer="adam")
    model, _ = server_step(adam, np.ones(P, dtype=np.float32), initial_state(adam, P), np.zeros(P))
    assert model.tobytes() == np.ones(P, dtype=np.float32).tobytes()
