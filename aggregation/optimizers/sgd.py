"""``sgd``: the mean delta itself, or with momentum (FedAvgM; Reddi et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Sgd(Optimizer):
    """velocity = momentum * velocity + delta; the direction is the velocity. Without momentum there is no state."""

    name: ClassVar[str] = "sgd"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:
        """See ``Optimizer``."""
        return ("velocity",) if server.momentum > 0.0 else ()

    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """See ``Optimizer``."""
        from aggregation.optimizers import kernels

        rate = server.learning_rate
        if server.momentum == 0.0:
            kernels.plain_step(*sums, before.model, after.model, rate)
            return
        velocity, following = before.state["velocity"], after.state["velocity"]
        kernels.momentum_step(*sums, before.model, after.model, rate, server.momentum, velocity, following)
