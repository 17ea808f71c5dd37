"""``constant``: every update counts fully (FedAsync, Xie et al. 2019, section 5.2)."""

from __future__ import annotations

from typing import ClassVar

from aggregation.weights.staleness.shape import StalenessKind, StalenessParameters


class Constant(StalenessKind):
    """s(tau) = 1."""

    name: ClassVar[str] = "constant"

    def weight(self, tau: int, parameters: StalenessParameters) -> float:  # noqa: ARG002 (constant)
        """See ``StalenessKind``."""
        return 1.0
