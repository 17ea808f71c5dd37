"""Guides and their announcements as guardians would make them, good and spoiled, for a federation in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aggregation.codecs import direction_of
from schemas.checkpoints import encode_direction
from schemas.guides import signed_guide
from schemas.objects import object_key, sha256_hex
from schemas.topics import guides_topic
from tests import factories

if TYPE_CHECKING:
    from aggregation.codecs import Direction
    from aggregation.layout import Layout
    from schemas.envelope import KeyPair
    from tests.small_federation import SmallFederation

GUIDED: dict[str, Any] = {
    "format": "fluvial/policy/v3",
    "window": {"updates_max": 4},
    "server": {"momentum": 0.5},
}


def guided_policy(**defence: Any) -> Any:
    """A policy of v3 whose defence is a guide."""
    return factories.policy(**GUIDED, defence={"kind": "guide"} | defence)


def direction(layout: Layout, seed: int = 0) -> Direction:
    """Any direction of a layout's weights."""
    rng = np.random.default_rng(seed)
    return direction_of(rng.normal(0.0, 1.0, layout.trainable.parameters), layout.trainable)


class Guardian:
    """Makes guides for a federation. Every argument of ``make`` and ``announce`` spoils what a guardian would say."""

    def __init__(self, federation: SmallFederation, by: KeyPair | None = None) -> None:
        self.federation = federation
        self.by = by or factories.guardian_signer()

    def make(self, version: int, **spoiled: Any) -> bytes:
        """The object."""
        federation = self.federation
        said: dict[str, Any] = {
            "task": federation.task,
            "version": version,
            "model_sha256": self._model(version),
            "examples": 200,
            "direction": direction(federation.layout, version),
        }
        said |= spoiled
        return signed_guide(federation.signer(said.pop("by", self.by)), **said)

    def raw(self, version: int, payload: bytes, **spoiled: Any) -> bytes:
        """An object whose direction is any bytes."""
        federation = self.federation
        record = {
            "task": federation.task,
            "version": version,
            "model_sha256": self._model(version),
            "examples": 200,
            "direction": payload,
        } | spoiled
        return federation.signer(self.by).sign("Guide", record)

    def announce(self, data: bytes, version: int, *, store: bool = True, **spoiled: Any) -> str:
        """Store it and announce it; its hash."""
        federation = self.federation
        if store:
            federation.objects.put_object(data)
        record = {
            "task": federation.task,
            "version": version,
            "model_sha256": self._model(version),
            "guide_sha256": sha256_hex(data),
            "guide_bytes": len(data),
        }
        by = federation.signer(spoiled.pop("by", self.by))
        self.append(by.sign("GuideAnnouncement", record | spoiled))
        return sha256_hex(data)

    def guide(self, version: int, **spoiled: Any) -> str:
        """A guide of a version, announced; its hash."""
        return self.announce(self.make(version, **spoiled), version)

    def _model(self, version: int) -> str:
        known = self.federation.models
        return known[version] if version < len(known) else "00" * 32

    def append(self, value: bytes | None) -> None:
        """Any bytes into the topic of guides."""
        self.federation.writer.append_now(guides_topic(self.federation.task), value, partition=0)  # type: ignore[arg-type]

    def replace(self, sha256: str, data: bytes) -> None:
        """Put other bytes where an object of this hash lies, as who may write the store can."""
        self.federation.objects.store.put(object_key(self.federation.task, sha256), data)


def nan_direction(layout: Layout) -> bytes:
    """The bytes of a direction with a scale that is NaN."""
    good = direction(layout)
    scales = tuple(float("nan") for _ in good.scales)
    return encode_direction(type(good)(good.q, scales, good.norm))


def zero_direction(layout: Layout) -> bytes:
    """The bytes of a direction that points nowhere."""
    good = direction(layout)
    return encode_direction(type(good)(np.zeros_like(good.q), good.scales, good.norm))
