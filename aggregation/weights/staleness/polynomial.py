"""``polynomial``: FedBuff's weight (Nguyen et al. 2022, section 5) with the exponent 1/2; FedAsync's (section 5.2)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.weights.staleness.shape import StalenessKind, StalenessParameters


class Polynomial(StalenessKind):
    """s(tau) = (1 + tau)^-exponent."""

    name: ClassVar[str] = "polynomial"

    def weight(self, tau: int, parameters: StalenessParameters) -> float:
        """See ``StalenessKind``."""
        return float((1.0 + tau) ** -parameters.exponent)
