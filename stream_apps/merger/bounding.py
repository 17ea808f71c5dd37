"""Whether a window's sums are such as its updates can have: a lie that stands alone moves a version no further."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.fold.bases import Base
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.state import LIVE_MAX
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from aggregation.server.bounds import beyond_bound
from stream_apps.merger.policies import Policies
from stream_apps.process_context import ProcessContext

Given = Callable[[Aggregate], bool]
"""Whether a window came of its log when it was folded here."""


class Bounding:
    """Holds sums against weight and policy of their window. What was folded here, ``given``, is right anyway."""

    def __init__(self, context: ProcessContext, policies: Policies, given: Given) -> None:
        self._layout = context.layout
        self._policies = policies
        self._given = given

    def said_problem(self, one: Aggregate) -> IntegrityProblem | None:
        """FLV-3004 where its policy is unknown, or it says other things: before its sums, many models, are read."""
        if self._given(one):
            return None
        policy = self._policies.known(one.policy_sha256)
        if policy is None:
            return IntegrityProblem(
                "FLV-3004", f"its policy, {one.policy_sha256[:12]}, is none that a version had"
            )
        wanted = policy.merge.buckets if policy.says_buckets else 0
        if len(one.buckets) != wanted:
            return IntegrityProblem(
                "FLV-3004",
                f"it says {len(one.buckets)} buckets of its sums, under its policy it says {wanted}",
            )
        if bool(one.bases) != (policy.says_bases and one.accepted > 0):
            return IntegrityProblem(
                "FLV-3004",
                f"it says {len(one.bases)} versions that its {one.accepted} updates answered, under its policy it "
                f"says {'all' if policy.says_bases else 'none'}",
            )
        odd = (
            None
            if _has_edges(one, policy)
            else next((at for at in one.bases if _is_odd(at, one, policy)), None)
        )
        if odd is not None:
            return IntegrityProblem(
                "FLV-3004",
                f"it says that {odd.accepted} updates of version {odd.base} weigh {odd.weight} at version "
                f"{one.version}, which they cannot by staleness.versions_max and staleness.weights of its policy",
            )
        return None

    def problem(self, one: Aggregate, sums: npt.NDArray[np.int64]) -> IntegrityProblem | None:
        """FLV-3004 where no updates of that weight can come to these sums, or what ``said_problem`` finds.

        ``sums`` is int64[``layout.sum_elements_of(one.bucket_count)``].
        """
        policy, said = self._policies.known(one.policy_sha256), self.said_problem(one)
        if said is not None or policy is None or self._given(one):
            return said
        beyond = beyond_bound(one, sums, policy, self._layout)
        if beyond is None:
            return None
        reach, bound = beyond
        return IntegrityProblem(
            "FLV-3004", f"its sums reach {reach}, updates of its weight reach {bound} at most"
        )


def _has_edges(one: Aggregate, policy: Policy) -> bool:
    """Whether edges' windows may be in it: their updates are weighed by who folded them, and once more if late."""
    return policy.knows_edges and one.accepted > one.counts.get(ACCEPTED, 0)


def _is_odd(base: Base, one: Aggregate, policy: Policy) -> bool:
    """Whether no worker takes updates of that base, or gives them that weight: a model of long ago is mixed in."""
    limits, late = policy.staleness, one.version - base.base
    most = limits.versions_max if limits.seconds_max <= 0.0 else LIVE_MAX
    return late > most or base.weight > base.accepted * limits.weights[min(late, len(limits.weights) - 1)]
