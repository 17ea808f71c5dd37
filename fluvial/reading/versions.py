"""The versions of a task as a list: what the manifests say, when they were made, how well they do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fluvial.reading.quality import Quality, quality_of
from fluvial.reading.status import created_at_ms
from fluvial.reading.task_view import TaskView
from schemas.manifests import Genesis, Manifest
from schemas.refusals import judged_of
from schemas.task_metric import ACCURACY


@dataclass(frozen=True, slots=True)
class VersionLine:
    """One version. ``staleness_mean`` in versions, None for version 0; ``metrics`` empty where it was not evaluated.

    ``counts`` are the manifest's, canaries among them; ``refused`` is without canaries where they are known.
    ``late_windows`` came late and weigh less, at most ``late_versions_max`` versions: both are None where the format of
    the manifest does not say. ``dropped`` are the accepted updates of windows that came too late.
    """

    version: int
    accepted: int
    refused: int
    counts: dict[str, int]
    staleness_mean: float | None
    staleness_max: int
    created_at_ms: int | None
    model_sha256: str
    parent_sha256: str
    policy_sha256: str
    reason: str
    metrics: dict[str, float]
    dropped: int = 0
    late_windows: int | None = None
    late_versions_max: int | None = None

    @property
    def lateness(self) -> str:
        """For people; "" where every window came in time."""
        if not self.late_windows:
            return ""
        dropped = f", {self.dropped} updates dropped" if self.dropped else ""
        return f"{self.late_windows} windows, max {self.late_versions_max}{dropped}"

    def document(self) -> dict[str, Any]:
        """For JSON; ``accuracy`` is one of ``metrics``, and stays where it was before there were others."""
        return asdict(self) | {ACCURACY: self.metrics.get(ACCURACY)}


def read_versions(view: TaskView, first: int, last: int) -> tuple[list[VersionLine], Quality]:
    """The versions ``first`` to ``last``, in ascending order, and how good the newest evaluated ones are."""
    told = view.told()
    quality = quality_of(view.genesis.metric, told.evaluations)
    lines = []
    for version in range(first, last + 1):
        metrics = dict(quality.values.get(version, {}))
        created = created_at_ms(view, version)
        lines.append(
            version_line(view.objects.manifest(version), created, metrics, told.canaries.get(version, 0))
            if version
            else genesis_line(view.genesis, created, metrics)
        )
    return lines, quality


def version_line(
    manifest: Manifest, created_ms: int | None, metrics: dict[str, float], canaries: int = 0
) -> VersionLine:
    """A version above 0, among whose refusals are so many of canaries."""
    late = [manifest.late_versions(one) or 0 for one in manifest.inputs if one.accepted]
    says = manifest.says_lateness
    return VersionLine(
        version=manifest.version,
        accepted=manifest.accepted,
        refused=judged_of(manifest.counts, canaries).refused,
        counts=dict(manifest.counts),
        staleness_mean=manifest.staleness_total / manifest.accepted if manifest.accepted else None,
        staleness_max=manifest.staleness_max,
        created_at_ms=created_ms,
        model_sha256=manifest.model_sha256,
        parent_sha256=manifest.parent_sha256,
        policy_sha256=manifest.policy_sha256,
        reason=manifest.reason,
        metrics=metrics,
        dropped=manifest.dropped,
        late_windows=sum(one > 0 for one in late) if says else None,
        late_versions_max=max(late, default=0) if says else None,
    )


def genesis_line(genesis: Genesis, created_ms: int | None, metrics: dict[str, float]) -> VersionLine:
    """Version 0."""
    return VersionLine(
        version=0,
        accepted=0,
        refused=0,
        counts={},
        staleness_mean=None,
        staleness_max=0,
        created_at_ms=created_ms,
        model_sha256=genesis.model_sha256,
        parent_sha256="",
        policy_sha256=genesis.first_policy.sha256,
        reason="genesis",
        metrics=metrics,
    )
