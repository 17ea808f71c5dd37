"""The server's control variate (SCAFFOLD; Karimireddy et al. 2020, algorithm 1, line 17): c' = c + (Σ w Δc) / N.

With T the exact sum of a version's control deltas, after lateness, in units of 2**-exponent, and N the policy's
``control.devices``::

    c' = float32(c + (T / 2**exponent) / N)

in float64, each operation rounded once. Where every weight is 1 that is the paper's c + (|S| / N) · mean of Δc. No
optimizer, no rate, no guide and no merge of buckets has a say in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from aggregation.policy import Policy


def control_after(
    control: npt.NDArray[np.float32], sums: npt.NDArray[np.int64], policy: Policy
) -> npt.NDArray[np.float32]:
    """The next control variates float32[C], from the parent's float32[C] and the sums int64[C]."""
    one_over_unit = 1.0 / float(1 << policy.fixed_point.exponent)
    steps = sums.astype(np.float64) * one_over_unit / float(policy.control.devices)
    return (control.astype(np.float64) + steps).astype(np.float32)
