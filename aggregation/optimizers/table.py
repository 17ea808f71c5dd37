"""The server optimizers that there are, by name, and the step that they share."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.families import member_of
from aggregation.optimizers.adam import Adam
from aggregation.optimizers.sgd import Sgd
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

OPTIMIZERS: Final[Mapping[str, Optimizer]] = MappingProxyType(
    {optimizer.name: optimizer for optimizer in (Sgd(), Adam(), Yogi())}
)


def initial_state(server: ServerParameters, parameters: int) -> dict[str, Float64Array]:
    """The state before the first step: zeros float64[P] under the optimizer's names; P is the number of weights."""
    return {name: np.zeros(parameters, dtype=np.float64) for name in _optimizer(server).state_names(server)}


def server_step(
    server: ServerParameters, model: Float32Array, state: OptimizerState, mean_delta: Float64Array
) -> tuple[Float32Array, dict[str, Float64Array]]:
    """One step: the new model float32[P] and the new state; the arguments are left as they are.

    model += learning_rate * direction, the direction being the optimizer's. A state that another optimizer left (a
    policy change) is replaced by the initial one.
    """
    optimizer = _optimizer(server)
    if sorted(state) != sorted(optimizer.state_names(server)):
        state = initial_state(server, model.size)
    direction, new_state = optimizer.direction(server, state, mean_delta)
    new_model = model.astype(np.float64) + server.learning_rate * direction
    return new_model.astype(np.float32), new_state


def _optimizer(server: ServerParameters) -> Optimizer:
    return member_of(OPTIMIZERS, server.optimizer, called="server optimizer")
