"""``mean``: all updates are added, whatever bucket they are in. FedBuff as it is: exact, in integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from aggregation.merges.shape import Gram, Merge, MergeParameters, shares_of


class Mean(Merge):
    """See the module. One bad bucket moves it as far as it likes: nothing is withstood."""

    name: ClassVar[str] = "mean"
    buckets_min: ClassVar[int] = 1
    buckets_max: ClassVar[int] = 1
    robust: ClassVar[bool] = False

    def coefficients(
        self,
        parameters: MergeParameters,  # noqa: ARG002 (it asks for nothing)
        gram: Gram,  # noqa: ARG002
        weights: Sequence[int],
    ) -> list[float]:
        """See ``Merge``."""
        return shares_of(weights)
