"""``yogi``: FedYogi (Reddi et al. 2021, algorithm 2; Zaheer et al. 2018), without bias correction.

Where delta² is far below v, adam forgets v by a share of v itself, yogi only by a share of delta²: so the effective
learning rate rises slowly, however sparse the deltas are. As for ``adam`` here, v begins at 0 and not at adaptivity².
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from aggregation.optimizers.shape import Float64Array, Optimizer, OptimizerState, ServerParameters


class Yogi(Optimizer):
    """m = beta_1 m + (1 - beta_1) delta; v = v - (1 - beta_2) delta² sign(v - delta²); m / (√v + adaptivity)."""

    name: ClassVar[str] = "yogi"

    def state_names(self, server: ServerParameters) -> tuple[str, ...]:  # noqa: ARG002 (always both)
        """See ``Optimizer``."""
        return ("m", "v")

    def direction(
        self, server: ServerParameters, state: OptimizerState, delta: Float64Array
    ) -> tuple[Float64Array, dict[str, Float64Array]]:
        """See ``Optimizer``. v never falls below 0: where it is above delta², only a part of delta² is taken off."""
        squared = delta * delta
        m = server.beta_1 * state["m"] + (1.0 - server.beta_1) * delta
        v = state["v"] - ((1.0 - server.beta_2) * squared) * np.sign(state["v"] - squared)
        return m / (np.sqrt(v) + server.adaptivity), {"m": m, "v": v}
