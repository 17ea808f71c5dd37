"""Staleness weights as integer tables.

A weight is a fixed-point number with 16 fractional bits: ``WEIGHT_ONE`` means 1.0. The table is computed
once, when a policy is written, and is part of the policy document, so no replay ever calls ``pow``.

Sources: the polynomial 1/(1+tau)^a is FedBuff (Nguyen et al. 2022, section 5) with a = 1/2 and FedAsync
(Xie et al. 2019, section 5.2); constant and hinge are FedAsync's other two.
"""

from __future__ import annotations

WEIGHT_FRACTION_BITS = 16
WEIGHT_ONE = 1 << WEIGHT_FRACTION_BITS

STALENESS_KINDS = ("constant", "polynomial", "hinge")


def staleness_weights(
    kind: str, *, versions_max: int, exponent: float, hinge_versions: int, hinge_slope: float
) -> tuple[int, ...]:
    """The weights for staleness 0, 1, ... ``versions_max``, each in units of 1/``WEIGHT_ONE``.

    * ``constant``: s(tau) = 1
    * ``polynomial``: s(tau) = (1 + tau)^-exponent
    * ``hinge``: s(tau) = 1 while tau <= hinge_versions, else 1 / (hinge_slope * (tau - hinge_versions) + 1)
    """

    def weight(tau: int) -> float:
        match kind:
            case "constant":
                return 1.0
            case "polynomial":
                return float((1.0 + tau) ** -exponent)
            case "hinge":
                return 1.0 if tau <= hinge_versions else 1.0 / (hinge_slope * (tau - hinge_versions) + 1.0)
            case _:
                raise ValueError(f"no staleness kind {kind!r}")

    return tuple(round(WEIGHT_ONE * weight(tau)) for tau in range(versions_max + 1))
