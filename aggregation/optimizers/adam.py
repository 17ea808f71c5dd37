"""``adam``: FedAdam (Reddi et al. 2021, algorithm 2), without bias correction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from aggregation.optimizers.shape import Float64Array, Optimizer, OptimizerState, ServerParameters


class Adam(Optimizer):
    """m = beta_1 m + (1 - beta_1) delta; v = beta_2 v + (1 - beta_2) delta²; the direction is m / (√v + adaptivity)."""

    name: ClassVar[str] = "adam"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always both)
        """See ``Optimizer``."""
        return ("m", "v")

    def direction(
        self, server: ServerParameters, state: OptimizerState, delta: Float64Array
    ) -> tuple[Float64Array, dict[str, Float64Array]]:
        """See ``Optimizer``."""
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        v = server.beta_2 * state["v"] + (1.0 - server.beta_2) * (delta * delta)
        return m / (np.sqrt(v) + server.adaptivity), {"m": m, "v": v}
