"""``median``: no update is much longer than the usual one.

Norms are clipped to ``norm_clip_medians`` times their median (adaptive clipping: Andrew et al. 2021, section 3), which
is of the whole task's accepted updates, before clipping, over the last versions, each device alike (``usual``); since
``fluvial/policy/v4`` by their squares, so that a crowd that sends next to nothing does not shorten the others. So a
scaled update is worth little more than an ordinary one, whatever partition it stands in. ``norm_clip_floor`` bounds how
far down it goes: whoever sends tiny updates cannot shrink everybody's to nothing. An update of zeros says nothing and
is refused: it would only make the step shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aggregation.defences.shape import Defence, DefenceParameters, Judged, Seen
from aggregation.reasons import Reason, because

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual


def clip_of(parameters: DefenceParameters, seen: Seen, usual: Usual) -> float | None:
    """The norm that an update is clipped to beside the policy's; None while nothing is usual."""
    if not usual.norm > 0.0:  # nor is it where a barrier says no number
        return None
    return max(parameters.norm_clip_floor * seen.norm_clip, parameters.norm_clip_medians * usual.norm)


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
        return Judged(clip_to=clip_of(parameters, seen, usual))
