"""Server optimizers: one elementwise step from a mean delta, in float64, in the order written here.

Only + - * / and sqrt are used, each correctly rounded by IEEE 754, and numpy evaluates them one array at a
time, so there is no fused multiply-add and any machine gets the same bits. The mean delta plays the part of
the negative gradient (Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2: FedAvgM and FedAdam,
no bias correction).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from aggregation.policy import ServerPolicy

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
OptimizerState = Mapping[str, Float64Array]


def initial_state(server: ServerPolicy, parameters: int) -> dict[str, Float64Array]:
    """The state before the first step.

    ``sgd`` with momentum has ``velocity``, ``adam`` has ``m`` and ``v``.
    """
    return {name: np.zeros(parameters, dtype=np.float64) for name in _state_names(server)}


def server_step(
    server: ServerPolicy, model: Float32Array, state: OptimizerState, mean_delta: Float64Array
) -> tuple[Float32Array, dict[str, Float64Array]]:
    """One step: the new model float32[P] and the new state; the arguments are left as they are.

    * ``sgd``: velocity = momentum * velocity + delta; model += learning_rate * velocity
    * ``adam``: m = beta_1 m + (1 - beta_1) delta; v = beta_2 v + (1 - beta_2) delta²;
      model += learning_rate * m / (√v + adaptivity)

    A state that another optimizer left (a policy change) is replaced by the initial one.
    """
    if sorted(state) != sorted(_state_names(server)):
        state = initial_state(server, model.size)
    match server.optimizer:
        case "sgd":
            direction, new_state = _sgd(server, state, mean_delta)
        case "adam":
            direction, new_state = _adam(server, state, mean_delta)
    new_model = model.astype(np.float64) + server.learning_rate * direction
    return new_model.astype(np.float32), new_state


def _state_names(server: ServerPolicy) -> tuple[str, ...]:
    if server.optimizer == "adam":
        return ("m", "v")
    return ("velocity",) if server.momentum > 0.0 else ()


def _sgd(
    server: ServerPolicy, state: OptimizerState, delta: Float64Array
) -> tuple[Float64Array, dict[str, Float64Array]]:
    if server.momentum == 0.0:
        return delta, {}
    velocity = server.momentum * state["velocity"] + delta
    return velocity, {"velocity": velocity}


def _adam(
    server: ServerPolicy, state: OptimizerState, delta: Float64Array
) -> tuple[Float64Array, dict[str, Float64Array]]:
    m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
    v = server.beta_2 * state["v"] + (1.0 - server.beta_2) * (delta * delta)
    return m / (np.sqrt(v) + server.adaptivity), {"m": m, "v": v}
