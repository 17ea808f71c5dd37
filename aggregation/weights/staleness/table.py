"""The staleness kinds that there are, by name, and the integer tables that policies carry.

The table is computed once, when a policy is written, and is part of the policy document, so no replay ever calls
``pow``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.families import member_of
from aggregation.weights.fixed_point import WEIGHT_ONE
from aggregation.weights.staleness.constant import Constant
from aggregation.weights.staleness.hinge import Hinge
from aggregation.weights.staleness.polynomial import Polynomial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.weights.staleness.shape import StalenessKind, StalenessParameters

STALENESS_KINDS: Final[Mapping[str, StalenessKind]] = MappingProxyType(
    {kind.name: kind for kind in (Constant(), Polynomial(), Hinge())}
)


def staleness_weights(kind: str, parameters: StalenessParameters, *, versions_max: int) -> tuple[int, ...]:
    """The weights for staleness 0, 1, ... ``versions_max``, each in units of 1/``WEIGHT_ONE``.

    ``UsageProblem`` (FLV-2006) for a kind that there is none of.
    """
    weight = member_of(STALENESS_KINDS, kind, called="staleness kind").weight
    return tuple(round(WEIGHT_ONE * weight(tau, parameters)) for tau in range(versions_max + 1))
