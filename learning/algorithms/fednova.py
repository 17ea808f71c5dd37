"""``fednova``: devices that take more local steps do not pull the model further than others.

J. Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, 2020, section 4:
a local change is −η G a, G the gradients of its steps and a the weight that each step's gradient has in it. It is
normalized by ‖a‖₁, and the mean of devices' normalized changes is scaled by τ_eff, which the paper leaves free (the
mean of ‖a‖₁ over devices gives FedAvg's length of step). No device knows that mean, so the task states τ_eff, the same
for all: each publishes its change times τ_eff / ‖a‖₁. Any server that averages changes then takes the paper's step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aggregation.errors import UsageProblem
from learning.algorithms.shape import NO_PULL, LocalSteps, setting

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FedNova:
    """tau_eff: the number of local steps that every published change is scaled to; the task has to state it."""

    tau_eff: float = setting(None, low=1e-3, high=1e6, what="the local steps that a change is scaled to")

    name: ClassVar[str] = "fednova"
    controlled: ClassVar[bool] = False
    needs_base: ClassVar[bool] = True
    head_epochs: ClassVar[int] = 0
    pull: ClassVar[float] = NO_PULL

    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Leave the gradients as they are."""

    def factor(self, steps: LocalSteps) -> float:
        """τ_eff / ‖a‖₁. UsageProblem FLV-2207: the optimizer has no such a, or its steps run away."""
        if not steps.linear:
            raise UsageProblem(
                "FLV-2207",
                "fednova normalizes the steps of SGD; another optimizer's are no fixed sum of gradients",
                hint="use optimizer='sgd', with or without momentum and without dampening, or another algorithm",
            )
        weight = accumulation(steps)
        if not math.isfinite(weight):
            raise UsageProblem(
                "FLV-2207",
                f"fednova: with the learning rate {steps.learning_rate:g} and mu {steps.pull:g} local steps run away",
                hint="keep learning_rate × mu below 1",
            )
        return self.tau_eff / weight


def accumulation(steps: LocalSteps) -> float:
    """‖a‖₁: how much of one gradient is in the change of all steps together.

    Section 4.1 and its examples: the number of steps t for SGD; with momentum m, (t − m(1 − m^t)/(1 − m)) / (1 − m);
    with a proximal term and c = ημ, (1 − (1 − c)^t) / c. It is computed as what the optimizer makes of one gradient
    of 1, step after step, which covers them all and their combinations.
    """
    moved, velocity, total = 0.0, 0.0, 0.0
    for step in range(steps.steps):
        gradient = (1.0 if step == 0 else 0.0) + steps.pull * moved
        velocity = steps.momentum * velocity + gradient
        moved -= steps.learning_rate * (gradient + steps.momentum * velocity if steps.nesterov else velocity)
        total += abs(moved)
    return total / steps.learning_rate
