"""Telling everybody of a version. It can be said any number of times, by anybody: it changes nothing the second time.

For each region: a barrier into every partition; once all are acknowledged, the region's announcement. So no device can
be ahead of its partition's barrier, and its first update on the version is not one on a future base.
"""

from __future__ import annotations

from concurrent.futures import Future

from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, Headers, Position
from backends.outages import retry_through_outage
from schemas.topics import models_topic, updates_topic
from stream_apps.merger.policies import Policies
from stream_apps.merger.version import Version
from stream_apps.process_context import ProcessContext


class Telling:
    """Barriers and announcements of one task."""

    def __init__(self, context: ProcessContext, policies: Policies) -> None:
        self._context = context
        self._policies = policies
        self._task = context.genesis.task
        self._writer = context.writer

    def tell(self, version: Version, headers: Headers) -> None:
        """Barriers into every partition of a region, then, once acknowledged, that region's announcement.

        Raises what the broker said where it refused one.
        """
        announced = []
        for region in self._context.genesis.partitions:
            self._write_barriers(version, region, headers)
            crash_point("merger.before-announcement")
            announced.append(self._announce(version, region, headers))
            crash_point("merger.between-barriers")
        self._flush(f"announce version {version.number}")
        for future in announced:
            future.result(timeout=0)
        self._context.observer.announced(version.number)

    def _write_barriers(self, version: Version, region: str, headers: Headers) -> None:
        """One into every partition of the region; returns when the broker has acknowledged them all."""
        barrier: dict[str, object] = {
            "task": self._task,
            "region": region,
            "version": version.number,
            "manifest_sha256": version.manifest_sha256,
            "model_sha256": version.model_sha256,
            "reference_sha256": version.reference_sha256,
            "policy_sha256": version.policy_sha256,
            "floor": version.floor,
            "reason": version.reason,
        }
        if self._policies.of(version.policy_sha256).counts_shares:
            usual = version.pools.usual
            barrier |= {
                "usual_norm": usual.norm,
                "usual_cosine": usual.cosine,
                "usual_share": usual.share,
                "guide_sha256": version.guide_sha256,
            }
        value = self._context.signer.sign("Barrier", barrier)
        written = [
            self._writer.append(
                updates_topic(self._task, region), value, partition=partition, headers=headers
            )
            for partition in range(self._context.genesis.partitions[region])
        ]
        self._flush(f"write the barriers of version {version.number} to {region}")
        for future in written:
            future.result(timeout=0)

    def _announce(self, version: Version, region: str, headers: Headers) -> Future[Position]:
        announcement = {
            "task": self._task,
            "region": region,
            "version": version.number,
            "manifest_sha256": version.manifest_sha256,
            "model_sha256": version.model_sha256,
            "policy_sha256": version.policy_sha256,
        }
        return self._writer.append(
            models_topic(self._task),
            self._context.signer.sign("ModelAnnouncement", announcement),
            key=region.encode(),
            partition=0,
            headers=headers,
        )

    def _flush(self, what: str) -> None:
        retry_through_outage(what, lambda: self._writer.flush(FLUSH_TIMEOUT_S), clock=self._context.clock)
