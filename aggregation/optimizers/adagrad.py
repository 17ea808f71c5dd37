"""``adagrad``: FedAdagrad (Reddi et al. 2021, algorithm 2), with the first moment that stands there; v begins at 0."""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Adagrad(Optimizer):
    """m = beta_1 m + (1 - beta_1) delta; v = v + delta²; the direction is m / (√v + adaptivity)."""

    name: ClassVar[str] = "adagrad"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always both)
        """See ``Optimizer``."""
        return ("m", "v")

    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """See ``Optimizer``."""
        from aggregation.optimizers import kernels

        kernels.adagrad_step(
            *sums,
            before.model,
            after.model,
            server.learning_rate,
            server.beta_1,
            server.adaptivity,
            before.state["m"],
            before.state["v"],
            after.state["m"],
            after.state["v"],
        )
