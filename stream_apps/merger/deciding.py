"""The merger's one decision, which windows make the next version, and the manifest that says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from aggregation.server.merge import choose
from schemas.manifests import Manifest, input_of, next_cursors, sum_counts
from stream_apps.merger.deriving import Derived
from stream_apps.merger.version import Version


def windows_due(
    waiting: Sequence[Aggregate], policy: Policy, *, since_s: float | None, now_s: float
) -> tuple[Aggregate, ...]:
    """The windows of the next version; () while none is due.

    ``since_s`` is when updates began to wait, None where none does; both times are of one monotonic clock.
    """
    waited_s = now_s - since_s if since_s is not None else 0.0
    return choose(waiting, policy, deadline_passed=waited_s >= policy.buffer.seconds_max)


def next_manifest(
    task: str, head: Version, chosen: tuple[Aggregate, ...], derived: Derived, document_format: str
) -> Manifest:
    """The manifest of the version after ``head``, which holds the ``chosen`` windows; not signed yet.

    Raises ``IntegrityProblem`` (FLV-3003) where they do not go on at its cursors.
    """
    return Manifest(
        task=task,
        version=head.number + 1,
        parent_sha256=head.manifest_sha256,
        policy_sha256=head.policy_sha256,
        inputs=tuple(input_of(aggregate) for aggregate in chosen),
        cursors=next_cursors(head.cursors, chosen),
        counts=sum_counts(chosen),
        accepted=sum(aggregate.accepted for aggregate in chosen),
        weight_total=sum(aggregate.weight_total for aggregate in chosen),
        staleness_total=sum(aggregate.staleness_total for aggregate in chosen),
        staleness_max=max(aggregate.staleness_max for aggregate in chosen),
        update_bytes=sum(aggregate.update_bytes for aggregate in chosen),
        model_sha256=derived.model_sha256,
        optimizer_sha256=derived.optimizer_sha256,
        reference_sha256=derived.reference_sha256,
        floor=head.floor,
        format=document_format,
    )
