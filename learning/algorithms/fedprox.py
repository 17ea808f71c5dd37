"""``fedprox``: a proximal term keeps the local model near the one that the round began with.

T. Li et al., Federated Optimization in Heterogeneous Networks, 2020, section 3.2 and algorithm 2: a device minimizes
h(w; w_base) = F(w) + μ/2 ‖w − w_base‖², so each gradient has μ (w − w_base) added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from learning.algorithms.shape import LocalSteps, setting

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FedProx:
    """mu: the paper's μ. 0 is FedAvg; the paper tries 0.001 to 1. Above 1 / learning_rate the steps overshoot."""

    mu: float = setting(0.01, low=0.0, high=1e3, what="the weight of the proximal term")

    name: ClassVar[str] = "fedprox"
    controlled: ClassVar[bool] = False
    head_epochs: ClassVar[int] = 0
    needs_base: ClassVar[bool] = True

    @property
    def pull(self) -> float:
        """μ."""
        return self.mu

    @torch.no_grad()
    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Add μ (w − w_base)."""
        for parameter, before in zip(parameters, base, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - before, alpha=self.mu)

    def factor(self, steps: LocalSteps) -> float:
        """1: the change is published as it is."""
        del steps
        return 1.0
