"""``cosine``: half a cosine from the full rate to its lowest share (Loshchilov and Hutter 2017, without restarts)."""

from __future__ import annotations

from typing import ClassVar, Final

from aggregation.schedules.shape import Schedule, ScheduleParameters

HALF_PI: Final = 1.5707963267948966
TERMS: Final = 12
"""Of the cosine's power series behind its 1: what follows is below 2**-60 where it is used, from 0 to π/2."""


class Cosine(Schedule):
    """eta · (factor + (1 - factor) s) with s = cos²(π u / (2 versions)) = (1 + cos(π u / versions)) / 2, u the steps.

    A library's cosine is rounded as that library likes, so this one is its power series: with y = π/2 · (u / versions)
    and q = y², c = 1, then for k = 12, ... 1: c = 1 - (q / ((2k - 1) 2k)) c; s = c². From ``versions`` on s is 0.
    """

    name: ClassVar[str] = "cosine"

    def rate(self, parameters: ScheduleParameters, learning_rate: float, steps: int) -> float:
        """See ``Schedule``."""
        factor = parameters.factor
        return learning_rate * (factor + (1.0 - factor) * _share(steps, parameters.versions))


def _share(steps: int, versions: int) -> float:
    if steps >= versions:
        return 0.0
    angle = HALF_PI * (float(steps) / float(versions))
    squared, cosine = angle * angle, 1.0
    for k in range(TERMS, 0, -1):
        cosine = 1.0 - (squared / float((2 * k - 1) * (2 * k))) * cosine
    return cosine * cosine
