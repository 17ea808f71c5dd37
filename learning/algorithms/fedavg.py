"""``fedavg``: local SGD as it is, the default.

B. McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017, algorithm 1
(ClientUpdate): w ← w − η ∇loss(w; b) for each batch b of each local epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from learning.algorithms.shape import NO_PULL, LocalSteps

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FedAvg:
    """Adds nothing; see ``learning.algorithms.shape.Algorithm``."""

    name: ClassVar[str] = "fedavg"
    controlled: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False
    head_epochs: ClassVar[int] = 0
    pull: ClassVar[float] = NO_PULL

    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Leave the gradients as they are."""

    def factor(self, steps: LocalSteps) -> float:
        """1: the change is published as it is."""
        del steps
        return 1.0
