"""The one shape of a server optimizer: from a mean delta and a state to the next model and the next state.

Elementwise, in float64, in the order written in each file. Only + - * / and sqrt are used, each correctly rounded by
IEEE 754 (a sign is exact), none fused into another: so any machine gets the same bits. A step goes over its elements
once, in a loop of ``kernels``: the state of adam alone is four times the model, and arrays between the operations would
be as much again. The mean delta plays the part of the negative gradient (Reddi et al. 2021, "Adaptive Federated
Optimization", algorithm 2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

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
    def nesterov(self) -> bool:
        """For ``sgd`` with momentum: whether the direction looks ahead."""
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


class Sums(NamedTuple):
    """Deltas added up: the mean delta is float64(total) * one_over_unit / divisor, element by element.

    total: int64[n] in units of a power of two, whose inverse ``one_over_unit`` is: a product with it is exact. Or
    float64[n], the mean delta itself, with 1.0 and 1.0.
    """

    total: npt.NDArray[np.int64] | Float64Array
    one_over_unit: float = 1.0
    divisor: float = 1.0


class Carried(NamedTuple):
    """What goes from version to version: some n elements of the model, float32[n], and of the optimizer's state.

    ``state`` has the arrays that ``state_names`` says, float64[n] each.
    """

    model: Float32Array
    state: OptimizerState


class Optimizer(ABC):
    """One optimizer. It holds nothing itself: what it remembers is its state."""

    name: ClassVar[str]

    @abstractmethod
    def state_names(self, server: ServerParameters) -> tuple[str, ...]:
        """The names of the state's arrays, each float64[P]; zeros before the first step."""

    @abstractmethod
    def step_into(self, server: ServerParameters, sums: Sums, before: Carried, after: Carried) -> None:
        """Fill ``after`` from ``before`` and the mean delta of ``sums``, of any n elements.

        The model becomes float32(model + learning_rate * direction), and the state the next one. What is read is left
        as it is.
        """
