"""The server optimizers that there are, by name, and the step that they share."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from aggregation.families import member_of
from aggregation.optimizers.adagrad import Adagrad
from aggregation.optimizers.adam import Adam
from aggregation.optimizers.amsgrad import Amsgrad
from aggregation.optimizers.sgd import Sgd
from aggregation.optimizers.shape import Carried, Sums
from aggregation.optimizers.yogi import Yogi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.optimizers.shape import (
        Float32Array,
        Float64Array,
        Optimizer,
        OptimizerState,
        ServerParameters,
    )

Element = TypeVar("Element", bound=np.generic)

OPTIMIZERS: Final[Mapping[str, Optimizer]] = MappingProxyType(
    {optimizer.name: optimizer for optimizer in (Sgd(), Adam(), Yogi(), Adagrad(), Amsgrad())}
)


def initial_state(server: ServerParameters, parameters: int) -> dict[str, Float64Array]:
    """The state before the first step: zeros float64[P] under the optimizer's names; P is the number of weights."""
    return {name: np.zeros(parameters, dtype=np.float64) for name in _optimizer(server).state_names(server)}


class ServerStep:
    """One step of the optimizer that ``server`` names, made piece by piece: ``take`` every element once.

    ``before`` is the model float32[P] and stays as it is, as does ``state``. A state that another optimizer left (a
    policy change) is replaced by the initial one. ``after`` float32[P], which may be the caller's, and ``state``
    become the next model and the next state: all that the step allocates. ``seen`` is ``after``, not to be written.
    """

    def __init__(
        self,
        server: ServerParameters,
        before: Float32Array,
        state: OptimizerState,
        after: Float32Array | None = None,
    ) -> None:
        self._server = server
        self._optimizer = _optimizer(server)
        if sorted(state) != sorted(self._optimizer.state_names(server)):
            state = initial_state(server, before.size)
        self.before = read_only(before)
        self._state_before = {name: read_only(array) for name, array in state.items()}
        self.after = np.empty_like(before) if after is None else after
        self.seen = read_only(self.after)
        self.state = {name: np.empty(before.size) for name in self._optimizer.state_names(server)}

    def take(self, begin: int, sums: Sums) -> None:
        """Step the elements from ``begin`` on, as many as ``sums`` are of."""
        piece = slice(begin, begin + sums.total.size)
        before = {name: array[piece] for name, array in self._state_before.items()}
        after = {name: array[piece] for name, array in self.state.items()}
        self._optimizer.step_into(
            self._server, sums, Carried(self.before[piece], before), Carried(self.after[piece], after)
        )


def server_step(
    server: ServerParameters, model: Float32Array, state: OptimizerState, mean_delta: Float64Array
) -> tuple[Float32Array, dict[str, Float64Array]]:
    """One step in one piece: the new model float32[P] and the new state; the arguments are left as they are."""
    step = ServerStep(server, model, state)
    step.take(0, Sums(read_only(mean_delta)))
    return step.after, step.state


def read_only(array: npt.NDArray[Element]) -> npt.NDArray[Element]:
    """The same memory, not to be written. Loops are compiled for these once, whoever owns what they read."""
    seen = array.view()
    seen.flags.writeable = False
    return seen


def _optimizer(server: ServerParameters) -> Optimizer:
    return member_of(OPTIMIZERS, server.optimizer, called="server optimizer")
