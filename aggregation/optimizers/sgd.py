"""``sgd``: the mean delta itself, or with momentum (FedAvgM; Hsu, Qi and Brown 2019, section 4), Nesterov's too.

Nesterov's in the form that looks ahead from the new velocity (Sutskever et al. 2013, section 2, after a change of
variables; as in torch.optim.SGD).
"""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Sgd(Optimizer):
    """velocity = momentum * velocity + delta; the direction is the velocity. Without momentum there is no state.

    With ``nesterov`` the direction is delta + momentum * velocity, the velocity being the new one.
    """

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
        step = kernels.nesterov_step if server.nesterov else kernels.momentum_step
        step(*sums, before.model, after.model, rate, server.momentum, velocity, following)
