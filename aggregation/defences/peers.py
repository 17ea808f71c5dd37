"""``peers``: what v1 and v2 call ``anomaly``. Scores of a well-formed update.

Is its norm far above its peers', does it point against the last step?

* ``norm_deviations`` = (norm - median) / (1.4826 * MAD), over the norms of the partition's last
  ``history_updates`` scored updates (the robust z-score; Rousseeuw and Croux 1993, section 1). Only large
  norms are suspicious: a device that has converged sends small ones.
* ``cosine`` = the similarity with the last global step (the idea of Zeno and of FLTrust, Cao et al. 2021,
  section 4, with the server's own last step in the place of a root data set).

Every scored update enters the history, refused or not, and uses up the device's one contribution for its base
version: so nobody can fill the history, and a real shift of all norms is followed instead of locking everyone
out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aggregation.defences.shape import Defence, DefenceParameters, Judged, Seen
from aggregation.reasons import Reason, because

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual


class Peers(Defence):
    """See the module."""

    name: ClassVar[str] = "peers"
    remembers_norms: ClassVar[bool] = True

    def judge(
        self,
        parameters: DefenceParameters,
        seen: Seen,
        usual: Usual,  # noqa: ARG002 (its peers are the partition's)
        history: NormHistory,
    ) -> Judged:
        """See ``Defence``."""
        known = len(history) >= parameters.history_updates_min
        deviations = history.deviations(seen.norm) if known else 0.0
        problem = None
        if deviations > parameters.norm_deviations_max:
            problem = because(Reason.DEVIATES, seen.norm, deviations, parameters.norm_deviations_max)
        elif seen.cosine < parameters.cosine_min:
            problem = because(Reason.AGAINST, seen.cosine, parameters.cosine_min)
        return Judged(problem, deviations)
