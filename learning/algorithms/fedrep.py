"""``fedrep``: a device trains its private head first, and then the representation that all share.

L. Collins et al., Exploiting Shared Representations for Personalized Federated Learning, 2021, section 3 and algorithm
1: with the representation fixed, τ updates of the head; then, with that head, the update of the representation, which
alone is sent. The head is what the task's ``PRIVATE`` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from learning.algorithms.shape import NO_PULL, LocalSteps, setting

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FedRep:
    """head_epochs: passes over the device's examples in which the head alone is trained; ``epochs`` are the body's."""

    head_epochs: int = setting(10, low=1, high=10_000, what="the passes in which the head alone is trained")

    name: ClassVar[str] = "fedrep"
    controlled: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False
    pull: ClassVar[float] = NO_PULL

    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Leave the gradients as they are."""

    def factor(self, steps: LocalSteps) -> float:
        """1: the change is published as it is."""
        del steps
        return 1.0
