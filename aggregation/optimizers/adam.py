"""``adam``: FedAdam (Reddi et al. 2021, algorithm 2), without bias correction."""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Adam(Optimizer):
    """m = beta_1 m + (1 - beta_1) delta; v = beta_2 v + (1 - beta_2) delta²; the direction is m / (√v + adaptivity)."""

    name: ClassVar[str] = "adam"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always both)
        """See ``Optimizer``."""
        return ("m", "v")

    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """See ``Optimizer``."""
        from aggregation.optimizers import kernels

        kernels.adam_step(
            *sums,
            before.model,
            after.model,
            server.learning_rate,
            server.beta_1,
            server.beta_2,
            server.adaptivity,
            before.state["m"],
            before.state["v"],
            after.state["m"],
            after.state["v"],
        )
