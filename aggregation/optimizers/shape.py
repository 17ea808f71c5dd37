"""The one shape of a server optimizer: from a mean delta and a state to a direction and the next state.

Elementwise, in float64, in the order written in each file. Only + - * / and sqrt are used, each correctly rounded by
IEEE 754 (a sign is exact), and numpy evaluates them one array at a time, so there is no fused multiply-add and any
machine gets the same bits. The mean delta plays the part of the negative gradient (Reddi et al. 2021, "Adaptive
Federated Optimization", algorithm 2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
OptimizerState = Mapping[str, Float64Array]


class ServerParameters(Protocol):
    """What a policy says of the server's step; each optimizer reads what it needs."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""
        ...

    @property
    def learning_rate(self) -> float:
        """The factor of every direction."""
        ...

    @property
    def momentum(self) -> float:
        """For ``sgd``: how much of the last velocity stays."""
        ...

    @property
    def beta_1(self) -> float:
        """For the adaptive ones: decay of the first moment."""
        ...

    @property
    def beta_2(self) -> float:
        """For the adaptive ones: decay of the second moment."""
        ...

    @property
    def adaptivity(self) -> float:
        """For the adaptive ones: what is added to √v in the divisor, above 0, in model units."""
        ...


class Optimizer(ABC):
    """One optimizer. It holds nothing itself: what it remembers is its state."""

    name: ClassVar[str]

    @abstractmethod
    def state_names(self, server: ServerParameters) -> tuple[str, ...]:
        """The names of the state's arrays, each float64[P]; zeros before the first step."""

    @abstractmethod
    def direction(
        self, server: ServerParameters, state: OptimizerState, delta: Float64Array
    ) -> tuple[Float64Array, dict[str, Float64Array]]:
        """The direction float64[P] that the model moves in, and the next state; the arguments are left as they are.

        ``state`` has the arrays that ``state_names`` says; ``delta`` is the mean delta float64[P].
        """
