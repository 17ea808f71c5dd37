"""A policy as the rest of the system sees it: one meaning, whatever its document's format, and the document's bytes."""

from __future__ import annotations

import hashlib

import msgspec

from aggregation.policy.v2 import (
    AnomalyPolicy,
    BufferPolicy,
    FixedPointPolicy,
    ServerPolicy,
    StalenessPolicy,
    UpdatesPolicy,
    WindowPolicy,
)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. Made by ``policy_from_toml``, ``policy_from_mapping`` or ``policy_from_canonical``, never by hand.

    ``document`` holds the bytes that were read: they are what ``sha256`` names, whoever reads them with whatever
    version of Fluvial. Two policies are equal if their documents are.
    """

    format: str
    document: bytes
    updates: UpdatesPolicy
    staleness: StalenessPolicy
    window: WindowPolicy
    buffer: BufferPolicy
    server: ServerPolicy
    anomaly: AnomalyPolicy
    fixed_point: FixedPointPolicy

    def canonical(self) -> bytes:
        """The document's bytes, as they were read."""
        return self.document

    @property
    def sha256(self) -> str:
        """SHA-256 of the document's bytes, hex."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def updates_per_version_max(self) -> int:
        """The most updates that one version can hold.

        The buffer may be one short when a full window arrives.
        """
        return self.buffer.updates - 1 + self.window.updates_max
