"""The laws of the server optimizers. Every one inherits them: a subclass of ``OptimizerLaws`` says its formula."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.optimizers import OPTIMIZERS, initial_state, server_step

P, STEPS = 13, 6


@dataclass(frozen=True)
class Server:
    """The parameters of a policy's ``[server]`` that an optimizer may read."""

    optimizer: str
    learning_rate: float = 0.5
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001


VARIANTS = {
    "defaults": {},
    "another rate": {"learning_rate": 0.013},
    "momentum": {"momentum": 0.9},
    "momentum that looks ahead": {"momentum": 0.9, "nesterov": True},
    "no memory": {"beta_1": 0.0, "beta_2": 0.0},
    "a long memory": {"beta_1": 0.999999, "beta_2": 0.999999},
    "hardly adaptive": {"adaptivity": 1e12},
    "very adaptive": {"adaptivity": 1e-12},
}
FOREIGN_STATES: list[dict[str, npt.NDArray[np.float64]]] = [
    {},
    {"velocity": np.ones(P)},
    {"m": np.ones(P)},
    {"m": np.ones(P), "v": np.ones(P), "another": np.ones(P)},
]


def deltas() -> list[npt.NDArray[np.float64]]:
    """Ordinary ones, then zeros, equal ones again, and what is hardly a number any more."""
    rng = np.random.default_rng(5)
    ordinary = [rng.normal(size=P) * 10.0 ** rng.integers(-6, 3, P) for _ in range(STEPS - 3)]
    extreme = np.array(
        [0.0, -0.0, 5e-324, -5e-324, 1e-160, -1e-160, 1e-30, 1e30, -1e30, 1e3, -1e3, 1.0, -1.0]
    )
    return [*ordinary, np.zeros(P), ordinary[-1], extreme]


class OptimizerLaws:
    """What holds for every optimizer. ``naive`` is its formula for one element, in Python floats."""

    name: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]
    """The state's arrays, under the parameters of ``server()``."""

    @abstractmethod
    def naive(self, server: Server, state: dict[str, float], delta: float) -> tuple[float, dict[str, float]]:
        """One element's direction and next state."""

    def server(self, **changed: float) -> Server:
        return replace(Server(self.name), **changed)  # type: ignore[arg-type]

    def run(self, server: Server) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        model, state = np.linspace(-1, 1, P).astype(np.float32), initial_state(server, P)
        for delta in deltas():
            model, state = server_step(server, model, state, delta)
        return model, state

    def test_it_stands_in_the_table_under_its_own_name(self) -> None:
        assert OPTIMIZERS[self.name].name == self.name

    def test_it_remembers_what_it_says(self) -> None:
        assert OPTIMIZERS[self.name].state_names(self.server()) == self.array_names
        state = initial_state(self.server(), P)
        assert tuple(state) == self.array_names
        assert all(array.dtype == np.float64 and array.shape == (P,) for array in state.values())
        assert not any(array.any() for array in state.values())

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_it_follows_its_formula_bit_for_bit(self, variant: str) -> None:
        server = self.server(**VARIANTS[variant])
        model, state = self.run(server)
        for i in range(P):
            x, one = float(np.linspace(-1, 1, P).astype(np.float32)[i]), dict.fromkeys(state, 0.0)
            for delta in deltas():
                direction, one = self.naive(server, one, float(delta[i]))
                x = float(np.float32(x + server.learning_rate * direction))
            assert float(model[i]) == x
            assert {name: float(array[i]) for name, array in state.items()} == one

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_shapes_and_types_stay(self, variant: str) -> None:
        server = self.server(**VARIANTS[variant])
        model, state = self.run(server)
        assert model.dtype == np.float32 and model.shape == (P,)
        assert tuple(sorted(state)) == tuple(sorted(OPTIMIZERS[self.name].state_names(server)))
        assert all(array.dtype == np.float64 and array.shape == (P,) for array in state.values())
        assert np.all(np.isfinite(model))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_step_leaves_its_arguments_as_they_are(self, variant: str) -> None:
        server = self.server(**VARIANTS[variant])
        _, state = self.run(server)
        model, delta = np.ones(P, dtype=np.float32), deltas()[0]
        before = [model.tobytes(), delta.tobytes(), {name: array.tobytes() for name, array in state.items()}]
        server_step(server, model, state, delta)
        after = [model.tobytes(), delta.tobytes(), {name: array.tobytes() for name, array in state.items()}]
        assert before == after

    def test_every_element_goes_its_own_way(self) -> None:
        server = self.server()
        model, state = self.run(server)
        whole, whole_state = server_step(server, model, state, deltas()[0])
        part_state = {name: array[3:8] for name, array in state.items()}
        part, after = server_step(server, model[3:8], part_state, deltas()[0][3:8])
        assert part.tobytes() == whole[3:8].tobytes()
        assert all(after[name].tobytes() == whole_state[name][3:8].tobytes() for name in after)

    def test_nothing_from_nothing_moves_nothing(self) -> None:
        model = np.linspace(-1, 1, P).astype(np.float32)
        after, _ = server_step(self.server(), model, initial_state(self.server(), P), np.zeros(P))
        assert after.tobytes() == model.tobytes()

    def test_a_first_step_goes_where_the_delta_points(self) -> None:
        model, delta = np.zeros(P, dtype=np.float32), np.linspace(-1, 1, P)
        after, _ = server_step(self.server(), model, initial_state(self.server(), P), delta)
        assert np.array_equal(np.sign(after), np.sign(delta))

    @pytest.mark.parametrize("state", FOREIGN_STATES, ids=lambda state: "+".join(state) or "nothing")
    def test_another_optimizers_state_is_replaced_by_the_initial_one(
        self, state: dict[str, npt.NDArray[np.float64]]
    ) -> None:
        server = self.server()
        if sorted(state) == sorted(self.array_names):
            state = {"of another": np.ones(P)}
        model = np.zeros(P, dtype=np.float32)
        fresh = server_step(server, model, initial_state(server, P), deltas()[0])
        after = server_step(server, model, state, deltas()[0])
        assert fresh[0].tobytes() == after[0].tobytes()
        assert tuple(after[1]) == tuple(fresh[1])
