"""``sgd``: the mean delta itself, or with momentum (FedAvgM; Reddi et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Float64Array, Optimizer, OptimizerState, ServerParameters


class Sgd(Optimizer):
    """velocity = momentum * velocity + delta; the direction is the velocity. Without momentum there is no state."""

    name: ClassVar[str] = "sgd"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:
        """See ``Optimizer``."""
        return ("velocity",) if server.momentum > 0.0 else ()

    def direction(
        self, server: ServerParameters, state: OptimizerState, delta: Float64Array
    ) -> tuple[Float64Array, dict[str, Float64Array]]:
        """See ``Optimizer``."""
        if server.momentum == 0.0:
            return delta, {}
        velocity = server.momentum * state["velocity"] + delta
        return velocity, {"velocity": velocity}
