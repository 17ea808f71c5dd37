"""What a local algorithm is: what it adds to each gradient, and by what the round's change is scaled in the end.

A member is a frozen dataclass. Its fields are its settings, by the paper's names, each made by ``setting``: a task
gives them to ``fluvial.fit``, or in its CONFIG. An instance is one device's for one round and holds no state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

LOW, HIGH, WHAT, REQUIRED, WHOLE = "low", "high", "what", "required", "whole"
"""Keys of a setting's metadata."""
NO_PULL: Final = 0.0


def setting(default: float | None, *, low: float, high: float, what: str) -> Any:
    """A field of an algorithm: a number from ``low`` to ``high``, whole where the default is; without one, required."""
    metadata = {LOW: low, HIGH: high, WHAT: what, REQUIRED: default is None, WHOLE: isinstance(default, int)}
    return field(default=math.nan if default is None else default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """What a round of local SGD did, as far as its steps are linear in the gradients.

    steps: optimizer steps, 1 or more. linear: whether they are those of SGD, plain, with momentum (0 to below 1), or
    with Nesterov's. learning_rate: η, above 0. pull: μ of a proximal term, 0 for none.
    """

    steps: int
    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    pull: float = NO_PULL
    linear: bool = True


class Algorithm(Protocol):
    """One local algorithm with its settings."""

    name: ClassVar[str]
    """As a task's file says it."""

    controlled: ClassVar[bool]
    """Whether it trains with control variates (``learning.control``), which a task's layout has to have."""

    @property
    def needs_base(self) -> bool:
        """Whether it looks at the model that the round began with; else ``base`` may be empty."""
        ...

    @property
    def head_epochs(self) -> int:
        """Passes in which private layers alone are trained, before the rest is; 0 trains all at once."""
        ...

    @property
    def pull(self) -> float:
        """The μ by which each step is drawn back to the base; 0 for none."""
        ...

    def add_to_gradients(self, parameters: Sequence[nn.Parameter], base: Sequence[Tensor]) -> None:
        """Add its own term to each ``grad`` that is there. ``base``: what ``parameters`` were when the round began."""
        ...

    def factor(self, steps: LocalSteps) -> float:
        """By what local − base is scaled at the round's end; 1 leaves it. UsageProblem FLV-2207 where it has none."""
        ...
