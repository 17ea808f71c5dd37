"""``scaffold``: control variates take out of each step what a device's own data have that others' have not.

S. P. Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020, algorithm 1: each
gradient has c - c_i added, the server's control variate minus the device's own. What becomes of the variates behind the
steps (option II), and where they are kept, is in ``learning.control``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from aggregation.errors import UsageProblem
from learning.algorithms.optimizers import SGD
from learning.algorithms.shape import NO_PULL, LocalSteps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from learning.algorithms.shape import Algorithm


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Adds c - c_i to each gradient; see ``learning.algorithms.shape.Algorithm``."""

    name: ClassVar[str] = "scaffold"
    needs_base: ClassVar[bool] = True
    head_epochs: ClassVar[int] = 0
    pull: ClassVar[float] = NO_PULL
    controlled: ClassVar[bool] = True

    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Leave the gradients as they are: ``add_corrections`` has what belongs to them."""

    def factor(self, steps: LocalSteps) -> float:
        """1: the change is published as it is."""
        del steps
        return 1.0


@torch.no_grad()
def add_corrections(parameters: Sequence[nn.Parameter], corrections: Sequence[Tensor]) -> None:
    """Add c - c_i to each ``grad``; that of a parameter which the loss does not reach is 0."""
    for parameter, correction in zip(parameters, corrections, strict=True):
        if parameter.grad is None:
            parameter.grad = correction.clone()
        else:
            parameter.grad.add_(correction)


def require_plain_steps(
    rules: Sequence[Algorithm], optimizer: Any, settings: dict[str, Any], clip_norm: float | None
) -> None:
    """UsageProblem FLV-2207 where steps are not plain SGD's: of these alone (x - y) / (K η) is the mean gradient."""
    problem = ""
    if len(rules) > 1:
        problem = f"it goes with no other algorithm, got {', '.join(rule.name for rule in rules)}"
    elif optimizer is not SGD and optimizer not in {SGD, torch.optim.SGD}:
        problem = f"another optimizer's steps are no sum of gradients, got {optimizer!r}"
    elif settings:
        problem = f"SGD has to be plain, got {', '.join(settings)}"
    elif clip_norm is not None:
        problem = "clipped gradients are not those that the variates are the mean of, got clip_norm"
    if problem:
        raise UsageProblem(
            "FLV-2207",
            f"scaffold takes plain SGD: {problem}",
            hint="leave out momentum, weight_decay, clip_norm and other algorithms beside it",
        )
