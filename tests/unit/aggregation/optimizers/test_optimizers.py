"""Every server optimizer obeys the family's laws, by the papers' formulas, written a second time in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from aggregation.optimizers import OPTIMIZERS, initial_state, server_step
from tests.conformance.optimizers import OptimizerLaws, P, Server, deltas


class TestSgd(OptimizerLaws):
    name = "sgd"
    array_names = ()

    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        if not server.momentum:
            return delta, {}
        velocity = server.momentum * state["velocity"] + delta
        ahead = delta + server.momentum * velocity
        return ahead if server.nesterov else velocity, {"velocity": velocity}

    def test_with_momentum_it_has_a_velocity(self) -> None:
        assert list(initial_state(self.server(momentum=0.9), P)) == ["velocity"]

    def test_without_momentum_a_velocity_is_forgotten(self) -> None:
        model = np.zeros(P, dtype=np.float32)
        after, state = server_step(self.server(), model, {"velocity": np.ones(P)}, deltas()[0])
        assert after.tobytes() == (0.5 * deltas()[0]).astype(np.float32).tobytes()
        assert state == {}


class TestAdagrad(OptimizerLaws):
    name = "adagrad"
    array_names = ("m", "v")

    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        v = state["v"] + delta * delta
        return m / (math.sqrt(v) + server.adaptivity), {"m": m, "v": v}


class TestAmsgrad(OptimizerLaws):
    name = "amsgrad"
    array_names = ("m", "v", "v_max")

    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        v = server.beta_2 * state["v"] + (1.0 - server.beta_2) * (delta * delta)
        v_max = max(state["v_max"], v)
        return m / (math.sqrt(v_max) + server.adaptivity), {"m": m, "v": v, "v_max": v_max}

    def test_one_large_delta_keeps_the_rate_low_for_ever(self) -> None:
        large, small = np.full(P, 10.0), np.full(P, 0.1)
        model, state = server_step(
            self.server(), np.zeros(P, dtype=np.float32), initial_state(self.server(), P), large
        )
        for _ in range(50):
            model, state = server_step(self.server(), model, state, small)
        assert np.all(state["v"] < state["v_max"])
        assert np.allclose(state["v_max"], 0.01 * 10.0**2)


class TestAdam(OptimizerLaws):
    name = "adam"
    array_names = ("m", "v")

    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        v = server.beta_2 * state["v"] + (1.0 - server.beta_2) * (delta * delta)
        return m / (math.sqrt(v) + server.adaptivity), {"m": m, "v": v}


class TestYogi(OptimizerLaws):
    name = "yogi"
    array_names = ("m", "v")

    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        squared = delta * delta
        change = (1.0 - server.beta_2) * squared
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        if state["v"] > squared:
            v = state["v"] - change
        elif state["v"] < squared:
            v = state["v"] + change
        else:
            v = state["v"]
        return m / (math.sqrt(v) + server.adaptivity), {"m": m, "v": v}

    def test_a_small_delta_hardly_shrinks_what_is_remembered_of_a_large_one(self) -> None:
        large, small = np.full(P, 10.0), np.full(P, 0.1)
        model, state = server_step(
            self.server(), np.zeros(P, dtype=np.float32), initial_state(self.server(), P), large
        )
        _, after = server_step(self.server(), model, state, small)
        assert np.allclose(after["v"], state["v"] - 0.01 * 0.1**2)
        _, adams = server_step(Server("adam"), model, state, small)
        assert np.all(adams["v"] < after["v"])


def test_every_optimizer_is_held_to_the_laws() -> None:
    assert {laws.name for laws in OptimizerLaws.__subclasses__()} == set(OPTIMIZERS)


def test_an_unknown_optimizer_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match=f"'adamw', the known ones are {', '.join(OPTIMIZERS)}"):
        initial_state(Server("adamw"), P)
