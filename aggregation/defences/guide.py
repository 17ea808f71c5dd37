"""``guide``: an update counts as far as it agrees with a direction that a small trusted root set gives.

As FLTrust (Cao et al. 2021, section 4) weighs by the cosine with the update of a root set. FLTrust's weight is
max(0, cosine); here it rises from ``guide_cosine_min``, below which an update is refused, to 1 at the usual cosine:
near convergence honest cosines lie about 0, and honest devices of few classes are nearly orthogonal to any guide. A
device that contributes more often than is usual weighs less in proportion, so a flood within the rules is worth an
ordinary device's share. Norms are clipped as ``median`` does it; while there is no guide, shares still count. The merge
holds the version's step near the guide besides (``server.cone``).

The factor of an update's weight, each part in units of 1/65536 and rounded down, at least 1 in the end::

    min(1, (cosine - guide_cosine_min) / (usual cosine - guide_cosine_min)) · min(1, usual share / own share)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aggregation.defences.median import clip_of
from aggregation.defences.shape import Defence, DefenceParameters, Judged, Seen
from aggregation.defences.usual import COSINE_STEPS
from aggregation.reasons import Reason, because
from aggregation.weights.fixed_point import WEIGHT_ONE

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual


def agreement(cosine: float, least: float, usual: int) -> int:
    """What of an update's weight its cosine leaves, in units of 1/65536; ``usual`` is in 1/64, 0 for 0 or not known.

    Both differences are float64's, their parts in 1/65536 cut off.
    """
    above, full = int(WEIGHT_ONE * (cosine - least)), int(WEIGHT_ONE * (usual / COSINE_STEPS - least))
    return min(WEIGHT_ONE, WEIGHT_ONE * above // full) if full > 0 else WEIGHT_ONE


def fairness(own: int, usual: int) -> int:
    """What of an update's weight its device's share leaves, in units of 1/65536; ``usual`` 0 for not known."""
    return min(WEIGHT_ONE, WEIGHT_ONE * usual // own) if usual else WEIGHT_ONE


class Guide(Defence):
    """See the module."""

    name: ClassVar[str] = "guide"
    guided: ClassVar[bool] = True

    def judge(
        self,
        parameters: DefenceParameters,
        seen: Seen,
        usual: Usual,
        history: NormHistory,  # noqa: ARG002 (what is usual stands in barriers)
    ) -> Judged:
        """See ``Defence``."""
        if seen.norm == 0.0:
            return Judged(because(Reason.NO_CHANGE))
        clip_to, fair = clip_of(parameters, seen, usual), fairness(seen.share, usual.share)
        if not seen.compared:
            return Judged(clip_to=clip_to, factor=fair)
        least = parameters.guide_cosine_min
        if seen.cosine < least:
            return Judged(because(Reason.AGAINST_GUIDE, seen.cosine, least))
        left = agreement(seen.cosine, least, usual.cosine) * fair // WEIGHT_ONE
        return Judged(clip_to=clip_to, factor=max(1, left))
