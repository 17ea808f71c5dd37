"""The merger's one decision, which windows make the next version, and the manifest that says so. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aggregation.defences import Histograms
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import ON_TIME, Lateness, MergedWindows
from aggregation.server.merge import choose
from schemas.manifest_inputs import input_of, next_cursors, pools_of, sum_counts
from schemas.manifest_rules import VersionRules
from schemas.manifests import Manifest
from stream_apps.merger.deriving import Derived
from stream_apps.merger.version import Version


def windows_due(
    waiting: Sequence[Aggregate],
    policy: Policy,
    *,
    since_s: float | None,
    now_s: float,
    head_since_s: float = -math.inf,
    lateness: Lateness = ON_TIME,
) -> tuple[Aggregate, ...]:
    """The windows of the next version; () while none is due.

    ``since_s`` is when updates began to wait, None where none does, ``head_since_s`` when this merger made or adopted
    the last version; all times are of one monotonic clock.
    """
    if now_s - head_since_s < policy.buffer.seconds_min:
        return ()
    waited_s = now_s - since_s if since_s is not None else 0.0
    late = waited_s >= policy.buffer.seconds_max
    return choose(waiting, policy, deadline_passed=late, lateness=lateness)


def next_manifest(
    task: str,
    head: Version,
    chosen: Sequence[Aggregate],
    derived: Derived,
    rules: VersionRules,
    *,
    guide_sha256: str = "",
) -> Manifest:
    """The manifest of the version after ``head``, which holds the ``chosen`` windows; not signed yet.

    Raises ``IntegrityProblem`` (FLV-3003) where they do not go on at its cursors.
    """
    merged = MergedWindows.of(chosen, rules.lateness)
    counting, says = merged.counting, rules.says_lateness
    weights = merged.weights if says else (None,) * len(merged.windows)
    return Manifest(
        task=task,
        version=head.number + 1,
        parent_sha256=head.manifest_sha256,
        policy_sha256=head.policy_sha256,
        inputs=tuple(map(input_of, merged.windows, weights)),
        cursors=next_cursors(head.cursors, merged.windows),
        counts=sum_counts(merged.windows),
        accepted=merged.accepted,
        dropped=merged.dropped,
        weight_total=merged.weight_total,
        staleness_total=sum(aggregate.staleness_total for aggregate in counting),
        staleness_max=merged.staleness_max,
        update_bytes=sum(aggregate.update_bytes for aggregate in counting),
        usual=pools_of(merged.pools(head.pools) if says else Histograms()),
        guide_sha256=guide_sha256,
        model_sha256=derived.model_sha256,
        optimizer_sha256=derived.optimizer_sha256,
        reference_sha256=derived.reference_sha256,
        floor=head.floor,
        format=rules.document_format,
    )
