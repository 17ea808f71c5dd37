"""The merger's one decision, which windows make the next version, and the manifest that says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aggregation.defences import Histograms
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import ON_TIME, Lateness, MergedWindows, lateness_under
from aggregation.server.merge import choose
from schemas.documents import manifest_v1
from schemas.manifest_seals import manifest_format
from schemas.manifests import MANIFESTS_BEFORE_V3, Manifest, input_of, next_cursors, pools_of, sum_counts
from schemas.signing import SignatureDomain
from stream_apps.merger.deriving import Derived
from stream_apps.merger.version import Version


@dataclass(frozen=True, slots=True)
class Rules:
    """How the version after ``head`` is made: its manifest's format, and what lateness leaves of windows."""

    document_format: str = manifest_v1.FORMAT
    lateness: Lateness = ON_TIME

    @property
    def says_lateness(self) -> bool:
        """Whether its manifest says how late windows were, and what is usual."""
        return self.document_format not in MANIFESTS_BEFORE_V3


def rules_after(version: int, policy: Policy, domain: SignatureDomain) -> Rules:
    """The rules of the version after ``version``, of a task with these signatures; ``policy`` is in force there."""
    document_format = manifest_format(domain, policy)
    lateness = ON_TIME if document_format in MANIFESTS_BEFORE_V3 else lateness_under(policy, version)
    return Rules(document_format, lateness)


def windows_due(
    waiting: Sequence[Aggregate],
    policy: Policy,
    *,
    since_s: float | None,
    now_s: float,
    lateness: Lateness = ON_TIME,
) -> tuple[Aggregate, ...]:
    """The windows of the next version; () while none is due.

    ``since_s`` is when updates began to wait, None where none does; both times are of one monotonic clock.
    """
    waited_s = now_s - since_s if since_s is not None else 0.0
    late = waited_s >= policy.buffer.seconds_max
    return choose(waiting, policy, deadline_passed=late, lateness=lateness)


def next_manifest(
    task: str,
    head: Version,
    chosen: Sequence[Aggregate],
    derived: Derived,
    rules: Rules,
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
        staleness_max=max((aggregate.staleness_max for aggregate in counting), default=0),
        update_bytes=sum(aggregate.update_bytes for aggregate in counting),
        usual=pools_of(merged.pools(head.pools) if says else Histograms()),
        guide_sha256=guide_sha256,
        model_sha256=derived.model_sha256,
        optimizer_sha256=derived.optimizer_sha256,
        reference_sha256=derived.reference_sha256,
        floor=head.floor,
        format=rules.document_format,
    )
