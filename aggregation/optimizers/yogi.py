"""``yogi``: FedYogi (Reddi et al. 2021, algorithm 2; Zaheer et al. 2018), without bias correction.

Where delta² is far below v, adam forgets v by a share of v itself, yogi only by a share of delta²: so the effective
learning rate rises slowly, however sparse the deltas are. As for ``adam`` here, v begins at 0 and not at adaptivity².
"""

from __future__ import annotations

from typing import ClassVar

from aggregation.optimizers.shape import Carried, Optimizer, ServerParameters, Sums


class Yogi(Optimizer):
    """m = beta_1 m + (1 - beta_1) delta; v = v - ((1 - beta_2) delta²) sign(v - delta²); m / (√v + adaptivity)."""

    name: ClassVar[str] = "yogi"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always both)
        """See ``Optimizer``."""
        return ("m", "v")

    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """See ``Optimizer``. v never falls below 0: where it is above delta², only a part of delta² is taken off."""
        from aggregation.optimizers import kernels

        kernels.yogi_step(
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
