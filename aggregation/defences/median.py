"""``median``: no update is longer than the usual one, and no device counts more often than is usual.

Norms are clipped to their median (adaptive clipping: Andrew et al. 2021, section 3), which is of the whole task's
accepted updates, before clipping, over the last versions, each device alike (``usual``). So a scaled update is worth an
ordinary one, whatever partition it stands in. ``norm_clip_floor`` bounds how far down it goes: whoever sends tiny
updates cannot shrink everybody's to nothing. A device that contributes more often than is usual weighs less in
proportion, so a flood within the rules is worth an ordinary device's share. An update of zeros says nothing and is
refused: it would only make the step shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aggregation.defences.shape import Defence, DefenceParameters, Judged, Seen
from aggregation.reasons import Reason, because
from aggregation.weights.fixed_point import WEIGHT_ONE

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual


def clip_of(parameters: DefenceParameters, seen: Seen, usual: Usual) -> float | None:
    """The norm that an update is clipped to beside the policy's; None while nothing is usual."""
    return max(parameters.norm_clip_floor * seen.norm_clip, usual.norm) if usual.norm > 0.0 else None


def fairness(own: int, usual: int) -> int:
    """What of an update's weight its device's share leaves, in units of 1/65536; ``usual`` 0 for not known."""
    return min(WEIGHT_ONE, WEIGHT_ONE * usual // own) if usual else WEIGHT_ONE


class Median(Defence):
    """See the module."""

    name: ClassVar[str] = "median"

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
        return Judged(clip_to=clip_of(parameters, seen, usual), factor=fairness(seen.share, usual.share))
