"""``amsgrad``: the server of FADAS (Wang et al. 2024, algorithm 1; AMSGrad: Reddi, Kale and Kumar 2018, algorithm 2).

As ``adam``, but what divides never falls: where one large delta is followed by small ones, the effective rate stays
low. FADAS' rate for delayed versions is ``server.delay_versions_max``, and goes with every optimizer.
"""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Amsgrad(Optimizer):
    """m and v as ``adam``; v_max = the larger of v_max and v; the direction is m / (√v_max + adaptivity)."""

    name: ClassVar[str] = "amsgrad"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always these)
        """See ``Optimizer``."""
        return ("m", "v", "v_max")

    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """See ``Optimizer``."""
        from aggregation.optimizers import kernels

        kernels.amsgrad_step(
            *sums,
            before.model,
            after.model,
            server.learning_rate,
            server.beta_1,
            server.beta_2,
            server.adaptivity,
            before.state["m"],
            before.state["v"],
            before.state["v_max"],
            after.state["m"],
            after.state["v"],
            after.state["v_max"],
        )
