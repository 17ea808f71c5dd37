"""``hinge``: flat at first, then falling (FedAsync, Xie et al. 2019, section 5.2)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.weights.staleness.shape import StalenessKind, StalenessParameters


class Hinge(StalenessKind):
    """s(tau) = 1 while tau <= hinge_versions, else 1 / (hinge_slope * (tau - hinge_versions) + 1)."""

    name: ClassVar[str] = "hinge"

    def weight(self, tau: int, parameters: StalenessParameters) -> float:
        """See ``StalenessKind``."""
        if tau <= parameters.hinge_versions:
            return 1.0
        return 1.0 / (parameters.hinge_slope * (tau - parameters.hinge_versions) + 1.0)
