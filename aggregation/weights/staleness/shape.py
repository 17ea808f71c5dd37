"""The one shape of a staleness kind: a function of how many versions an update's base is behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol


class StalenessParameters(Protocol):
    """What a policy says beside the kind; each kind reads what it needs."""

    @property
    def exponent(self) -> float:
        """For ``polynomial``: how steeply it falls."""
        ...

    @property
    def hinge_versions(self) -> int:
        """For ``hinge``: up to which staleness it is flat."""
        ...

    @property
    def hinge_slope(self) -> float:
        """For ``hinge``: how steeply it falls behind that, in 1/versions."""
        ...


class StalenessKind(ABC):
    """One kind: s(0) = 1, and s never rises."""

    name: ClassVar[str]

    @abstractmethod
    def weight(self, tau: int, parameters: StalenessParameters) -> float:
        """s(tau) for a staleness ``tau`` of 0 or more, in [0, 1]. Used when a policy is written, never in a replay."""
